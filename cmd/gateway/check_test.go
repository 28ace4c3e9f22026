package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"wssgateway/gateway/wire"
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
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	plain := web.Listener.Addr().String()
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"ws://" + nobody + "/ws", "--timeout=200ms"}, exitFailed, "not connected within the time: connect: dial tcp " + nobody + ": connect: connection refused"},
		{[]string{"wss://" + plain + "/ws", "--timeout=2s"}, exitFailed, "HTTP response to HTTPS client"},
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

// TestCheckEndsWhenItIsRefused (finding U1): an Ingress that leads nowhere, say. It
// used to hang.
func TestCheckEndsWhenItIsRefused(t *testing.T) {
	for status, reason := range map[int]string{
		http.StatusNotFound: "default backend", http.StatusBadRequest: "bad request", http.StatusForbidden: "not from here",
		http.StatusUnauthorized: "token: signature is invalid\x1b[2J", // of another secret (finding U2)
	} {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, reason, status) }))
		start := time.Now()
		got := runBinary(t, nil, "check", "ws"+strings.TrimPrefix(web.URL, "http")+"/ws", "--timeout=60s")
		web.Close()
		want := fmt.Sprintf("/ws: handshake refused: %d %s: %s\n", status, http.StatusText(status), printable(reason))
		if got.code != exitFailed || !strings.Contains(got.stderr, want) || time.Since(start) > 20*time.Second {
			t.Errorf("%d: %+v after %v, want %q", status, got, time.Since(start), want)
		}
	}
}

// TestCheckWhereClientsMayNotPublish (finding U6): a healthy gateway whose class user
// has publish: none is asked as a backend.
func TestCheckWhereClientsMayNotPublish(t *testing.T) {
	published := make(chan string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/publish", func(w http.ResponseWriter, r *http.Request) {
		var m struct{ Data json.RawMessage }
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		published <- string(m.Data)
		fmt.Fprint(w, `{"id":"2-0","channel":"user:gateway-check"}`)
	})
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wire.Subprotocol}})
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.CloseNow() }()
		say := func(text string) { _ = conn.Write(r.Context(), websocket.MessageText, []byte(text)) }
		_, _, _ = conn.Read(r.Context())
		say(`{"type":"connected","ref":1,"session":"s_1","user":"gateway-check","node":"n","ping":30,"channels":{"user:gateway-check":{"last":"1-0","recovered":true}}}`)
		_, _, _ = conn.Read(r.Context())
		say(`{"type":"error","ref":1,"code":"forbidden","message":"you may not publish to this channel"}`)
		select {
		case data := <-published:
			say(`{"type":"message","channel":"user:gateway-check","id":"2-0","data":` + data + `}`)
		case <-r.Context().Done():
		}
		_, _, _ = conn.Read(r.Context())
	})
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	address := "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
	got := runBinary(t, []string{"GATEWAY_API_KEY=key"}, "check", address, "--api="+web.URL)
	if got.code != exitOK || !strings.Contains(got.stdout, "clients may not publish") || !strings.Contains(got.stdout, "ok: node n delivers") {
		t.Errorf("with an API: %+v", got)
	}
	got = runBinary(t, nil, "check", address)
	if got.code != exitFailed || !strings.Contains(got.stderr, "forbidden: you may not publish") {
		t.Errorf("without: %+v", got)
	}
}
