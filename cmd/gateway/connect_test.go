package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"wssgateway/client"
)

// freePort returns a port of this host on which nobody listens right now.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// awaitLine reads lines until one has all of the words, and returns it.
func awaitLine(t *testing.T, lines *bufio.Scanner, words ...string) string {
	t.Helper()
	for lines.Scan() {
		has := true
		for _, w := range words {
			has = has && strings.Contains(lines.Text(), w)
		}
		if has {
			return lines.Text()
		}
	}
	t.Fatalf("no line with %q: %v", words, lines.Err())
	return ""
}

// TestConnectShowsAndPublishes has two terminals talk over a node in development
// mode, one of which is a pipe.
func TestConnectShowsAndPublishes(t *testing.T) {
	listen := freePort(t)
	node, _ := startNode(t, "--listen="+listen)
	defer func() {
		_ = node.Process.Kill()
		_ = node.Wait()
	}()
	url := "ws://" + listen + "/ws"
	alice := gatewayCommand(t, nil, "connect", url, "--user=alice", "--channel=room:42", "--follow")
	shown, err := alice.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	notes, err := alice.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := alice.Start(); err != nil {
		t.Fatal(err)
	}
	lines, noted := bufio.NewScanner(shown), bufio.NewScanner(notes)
	awaitLine(t, noted, "connected to", "as alice")

	bob := gatewayCommand(t, nil, "connect", url, "--user=bob", "--channel=room:42")
	bob.Stdin = strings.NewReader("hello\n{\"n\": 1}\n/to alice  psst you\n/who\n/history room:42 1\n/nonsense\n/join room:7\nseven\n/history\n/leave room:7\n")
	var said strings.Builder
	bob.Stderr = &said
	out, err := bob.Output() // exit code 0: all was answered
	if err != nil {
		t.Fatalf("bob: %v\n%s", err, said.String())
	}
	awaitLine(t, lines, "room:42", " bob - {\"text\":\"hello\"}")
	awaitLine(t, lines, "room:42", " bob - {\"n\":1}")
	awaitLine(t, lines, "user:alice", " bob - {\"text\":\"psst you\"}")
	for _, want := range []string{"connected to", "room:42: 2 users: alice, bob", "not understood"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("bob was not told %q:\n%s", want, said.String())
		}
	}
	if !strings.Contains(string(out), "room:7") || !strings.Contains(string(out), "seven") {
		t.Errorf("bob was shown:\n%s", out)
	}
	awaitLine(t, noted, "room:42: bob left")
	if err := alice.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, notes) }()
	if err := alice.Wait(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
	raw := gatewayCommand(t, nil, "connect", url, "--user=carol", "--json")
	raw.Stdin = strings.NewReader("")
	if out, err := raw.Output(); err != nil || !strings.HasPrefix(string(out), `{"type":"connected",`) {
		t.Errorf("raw: %q, %v", out, err)
	}
}

func TestConnectMistakes(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"connect"}, "--user or --token is required"},
		{[]string{"connect", "--user=a", "--token=t"}, "give one of them"},
		{[]string{"connect", "wss://gateway.example/ws", "--user=a"}, "jwt_secret (GATEWAY_JWT_SECRET): is required"},
		{[]string{"connect", "http://127.0.0.1/ws", "--token=t"}, "is not a ws:// or wss:// URL"},
		{[]string{"connect", "--user=a", "--channel=a", "--channel=a"}, "subscribed to already"},
		{[]string{"connect", "--nonsense"}, "nonsense"},
	} {
		got := runBinary(t, nil, test.args...)
		if got.code != exitUsage || !strings.Contains(got.stderr, test.want) || got.stdout != "" {
			t.Errorf("%q: %+v", test.args, got)
		}
	}
	start := time.Now()
	node := freePort(t) // nobody is there: it tries until it is told to stop
	cmd := gatewayCommand(t, nil, "connect", "ws://"+node+"/ws", "--token=t")
	notes, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(notes) // and says why (finding U2)
	awaitLine(t, lines, "-- not connected: connect: dial tcp "+node+": connect: connection refused; attempt 1, the next one in ")
	awaitLine(t, lines, "attempt 2")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("interrupted while it was not connected: %v", err)
	}
}

// TestConnectEndsWhenItsTokenIsRefused (finding U2): it has no other one.
func TestConnectEndsWhenItsTokenIsRefused(t *testing.T) {
	listen := freePort(t)
	node, _ := startNode(t, "--listen="+listen)
	defer func() {
		_ = node.Process.Kill()
		_ = node.Wait()
	}()
	for _, args := range [][]string{{"--user=alice"}, {"--token=nonsense"}} {
		got := runBinary(t, []string{"GATEWAY_JWT_SECRET=another secret than that of the node"}, append([]string{"connect", "ws://" + listen + "/ws"}, args...)...)
		if got.code != exitFailed || !strings.Contains(got.stderr, "gateway: connect: handshake refused: 401 Unauthorized: ") {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

// TestTerminalShowsNoControlCharacters (finding M6): whoever sends a message must not
// command the terminal of who reads it.
func TestTerminalShowsNoControlCharacters(t *testing.T) {
	const evil = "\x1b]0;pwned\x07\x1b[2J\r\nfake\u009b\x7f\u202e\u2028\u2066\xff\U000e0001"
	var out, notes bytes.Buffer
	for _, raw := range []bool{false, true} {
		term := newTerminal(&out, &notes, raw)
		data := []byte("{\"a\":\r\n\"\u009b\x7f\u202e\U000e0001 é 世 👍\"}")
		h := term.handler()
		for _, m := range []client.Message{
			{Channel: evil, ID: evil, From: evil, Event: evil, Data: data}, {Channel: "a b", From: "-", Event: `"`, Data: []byte(evil)},
		} {
			h.Message(m)
		}
		h.Gap(evil, evil)
		h.Joined(evil, evil)
		h.Left(evil, evil)
		h.Refused(evil, evil)
		term.connected(client.Connected{Node: evil, User: evil, Session: evil})
		term.disconnected(client.Disconnected{Err: &client.CloseError{Code: 4999, Reason: evil}})
		term.failed(client.Failed{Err: &client.RefusedError{Status: 503, Reason: evil}})
		term.goaway(client.Goaway{Reason: evil})
		term.frame(data)
	}
	for _, r := range out.String() + notes.String() {
		if r != '\n' && !strconv.IsPrint(r) && r != utf8.RuneError {
			t.Fatalf("%q is shown:\n%q", r, out.String()+notes.String())
		}
	}
	if n, m := strings.Count(out.String(), "\n"), strings.Count(notes.String(), "\n"); n != 4 || m != 16 {
		t.Errorf("%d and %d lines:\n%s%s", n, m, out.String(), notes.String())
	}
	line, _, _ := strings.Cut(out.String(), "\n")
	if want := `{"a":"\u009b\u007f\u202e\udb40\udc01 é 世 👍"}`; !strings.HasSuffix(line, " "+want) {
		t.Errorf("data is shown as %s, want %s", line, want)
	}
	if second := strings.Split(out.String(), "\n")[1]; !strings.Contains(second, ` "a b" - "-" "\"" `) {
		t.Errorf("columns: %s", second)
	}
}
