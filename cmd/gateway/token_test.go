package main

import (
	"os"
	"strings"
	"testing"
)

// TestTokenRefusesWhatNodesRefuse: a token that no node accepts, or that grants
// nothing, is not signed.
func TestTokenRefusesWhatNodesRefuse(t *testing.T) {
	const (
		legal   = " UTF-8 without white space, control or format characters, *, { or }\n"
		matches = " matches no channel: a name has 1 to 255 bytes of" + legal
		sure    = "must have at least 32 bytes, for example from openssl rand -hex 32\n"
	)
	secret := "GATEWAY_JWT_SECRET=" + longSecret
	for _, test := range []struct {
		env    string
		args   []string
		stderr string
	}{
		{secret, []string{"--user=al ice"}, `--user: "al ice" cannot be a user: a name has 1 to 250 bytes of` + legal},
		{secret, []string{"--user", strings.Repeat("a", 251)},
			`--user: "` + strings.Repeat("a", 64) + `"… cannot be a user: a name has 1 to 250 bytes of` + legal},
		{secret, []string{"--user=a\xff"}, `--user: "a\xff" cannot be a user: a name has 1 to 250 bytes of` + legal},
		{secret, []string{"--user=a\u200b"}, `--user: "a\u200b" cannot be a user: a name has 1 to 250 bytes of` + legal},
		{secret, []string{"--user=alice", "--join=room:1,room:*"}, `--join: "room:*" is not a channel: a name has 1 to 255 bytes of` + legal},
		{secret, []string{"--user=alice", "--subscribe=room:*,ro om"}, `--subscribe: "ro om"` + matches},
		{secret, []string{"--user=alice", "--subscribe=room:\xc3*\xa9"}, `--subscribe: "room:\xc3*\xa9"` + matches},
		{secret, []string{"--user=alice", "--join=room:\xc3"}, `--join: "room:\xc3" is not a channel: a name has 1 to 255 bytes of` + legal},
		{secret, []string{"--user=alice", "--publish={a}:*"}, `--publish: "{a}:*"` + matches},
		{secret, []string{"--user=alice", "--publish", strings.Repeat("a", 256)}, `--publish: "` + strings.Repeat("a", 64) + `"…` + matches},
		{"GATEWAY_JWT_SECRET=" + longSecret[:31], []string{"--user=alice"}, "GATEWAY_JWT_SECRET: " + sure},
		{"GATEWAY_JWT_SECRET=" + developmentSecret, []string{"--user=alice"},
			"GATEWAY_JWT_SECRET: is the development secret, which everybody knows; choose your own\n"},
	} {
		got := runBinary(t, []string{test.env}, append([]string{"token"}, test.args...)...)
		if want := (result{exitUsage, "", "gateway: " + test.stderr}); got != want {
			t.Errorf("%q:\ngot  %+v\nwant %+v", test.args, got, want)
		}
	}
	got := runBinary(t, []string{"GATEWAY_JWT_SECRET=short"}, "token", "--user=a b", "--join=c d", "--ttl=0s")
	if got.code != exitUsage || strings.Count(got.stderr, "\n") != 4 {
		t.Errorf("not every mistake at once: %+v", got)
	}
}

func TestTokenSignsWhatNodesAccept(t *testing.T) {
	for _, args := range [][]string{
		{"--user", strings.Repeat("a", 250), "--join", strings.Repeat("c", 255), "--publish", strings.Repeat("c", 255) + "*"},
		{"--user=a:b/c@d+é#%", "--subscribe=*,**,room:*:é", "--publish=*"},
	} {
		got := runBinary(t, []string{"GATEWAY_JWT_SECRET=" + longSecret}, append([]string{"token"}, args...)...)
		if got.code != exitOK || got.stderr != "" || strings.Count(got.stdout, ".") != 2 {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if got := runBinary(t, []string{"GATEWAY_JWT_SECRET=mine"}, "token", "--dev", "--user=bob"); got.code != exitOK {
		t.Errorf("a short secret in development mode: %+v", got)
	}
}

// TestTokenThatCannotBePrinted: what takes it must not go on with nothing.
func TestTokenThatCannotBePrinted(t *testing.T) {
	stdout, err := os.Open(os.DevNull) // to read: writes to it fail
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	var stderr strings.Builder
	p := process{
		args: []string{"--user=alice"}, env: []string{"GATEWAY_JWT_SECRET=" + longSecret}, stdout: stdout, stderr: &stderr,
	}
	if code := token(p); code != exitFailed || !strings.HasPrefix(stderr.String(), "gateway: ") {
		t.Errorf("code %d, said %q", code, stderr.String())
	}
}
