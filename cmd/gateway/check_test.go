package main

import (
	"strings"
	"testing"
)

func TestCheckPassesOnANodeThatDelivers(t *testing.T) {
	listen := freePort(t)
	node, admin := startNode(t, "--listen="+listen)
	defer func() {
		_ = node.Process.Kill()
		_ = node.Wait()
	}()
	out, err := gatewayCommand(t, nil, "check", "ws://"+listen+"/ws", "--dev", "--api=http://"+admin).CombinedOutput()
	if err != nil {
		t.Fatalf("check: %v\n%s", err, out)
	}
	for _, want := range []string{"connected to ws://" + listen, "published as a client, and received", "published through http://" + admin + ", and received", "ok: node "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("check did not say %q:\n%s", want, out)
		}
	}
	wrongKey := gatewayCommand(t, []string{"GATEWAY_API_KEY=another"}, "check", "ws://"+listen+"/ws", "--api=http://"+admin)
	if out, err := wrongKey.CombinedOutput(); err == nil || wrongKey.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), "401") {
		t.Errorf("with a wrong API key: %v\n%s", err, out)
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	nobody := freePort(t)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"ws://" + nobody + "/ws", "--timeout=200ms"}, exitFailed, "not connected within the time"},
		{[]string{"wss://gateway.example/ws"}, exitUsage, "jwt_secret (GATEWAY_JWT_SECRET): is required"},
		{[]string{"--api=http://" + nobody}, exitUsage, "api_key (GATEWAY_API_KEY): is required for --api"},
		{[]string{"--api=here"}, exitUsage, `--api: "here" is not a URL`},
		{[]string{"--timeout=0s"}, exitUsage, "--timeout: must be positive"},
		{[]string{"http://" + nobody + "/ws"}, exitUsage, "is not a URL such as ws://"},
	} {
		cmd := gatewayCommand(t, nil, append([]string{"check"}, test.args...)...)
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != test.code || !strings.Contains(string(out), test.want) {
			t.Errorf("check %v: %v, want code %d and %q:\n%s", test.args, err, test.code, test.want, out)
		}
	}
}
