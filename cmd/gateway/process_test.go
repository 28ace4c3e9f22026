package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"wssgateway/broker/redistest"
)

// patience is what a test waits for something that has to happen; only a test that
// fails waits that long.
const patience = 30 * time.Second

// program is the built program, running, with what it says on standard error.
type program struct {
	cmd           *exec.Cmd
	lines         chan string // closed at the end
	said          []string    // those that were taken from lines
	public, admin string
}

// startProgram starts the program in development mode on Redis, with addresses of its
// own, and returns when it has bound them.
func startProgram(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	p := &program{lines: make(chan string, 10_000)}
	p.cmd = gatewayCommand(t, env, append([]string{"serve", "--dev", "--log-format=json",
		"--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"}, args...)...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait() // it may have been waited for
	})
	var started struct {
		Listen      string `json:"listen"`
		AdminListen string `json:"admin_listen"`
	}
	if err := json.Unmarshal([]byte(p.await(t, "node started")), &started); err != nil {
		t.Fatal(err)
	}
	p.public, p.admin = started.Listen, started.AdminListen
	return p
}

// await returns the next line of the log that has text in it.
func (p *program) await(t *testing.T, text string) string {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("the program ended without saying %q:\n%s", text, strings.Join(p.said, "\n"))
			}
			p.said = append(p.said, line)
			if strings.Contains(line, text) {
				return line
			}
		case <-timer.C:
			t.Fatalf("not said within %s: %q; but:\n%s", patience, text, strings.Join(p.said, "\n"))
		}
	}
}

// stop sends SIGTERM and returns how long the program took to end, and its exit code.
func (p *program) stop(t *testing.T) (took time.Duration, code int) {
	t.Helper()
	start := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for line := range p.lines { // to its end: then the process has gone
		p.said = append(p.said, line)
	}
	took = time.Since(start)
	_ = p.cmd.Wait() // its code is what counts
	return took, p.cmd.ProcessState.ExitCode()
}

// silentServer accepts connections and never answers. It has had one when asked is
// closed.
func silentServer(t *testing.T) (addr string, asked <-chan struct{}) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	first := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			if n == 0 {
				close(first)
			}
		}
	}()
	return ln.Addr().String(), first
}

// frozenClient connects as a client that reads nothing more, so that it neither moves
// nor answers a close frame.
func frozenClient(t *testing.T, public string, headers http.Header) {
	t.Helper()
	cfg := defaultConfig(true)
	token, err := signToken(&cfg, tokenOptions{User: "alice", TTL: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+public+"/ws?channel=room:1&access_token="+token, &websocket.DialOptions{HTTPHeader: headers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	if _, _, err := ws.Read(ctx); err != nil { // connected
		t.Fatal(err)
	}
}

// post publishes a message through the server API, and leaves the answer to whoever
// waits for it.
func post(t *testing.T, admin string) (status int, err error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+admin+"/v1/publish",
		strings.NewReader(`{"channel":"room:1","event":"e","data":1}`))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+developmentAPIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestTheProcessEndsInTimeWithoutRedis: whatever does not answer while a node stops, it
// has gone at its drain timeout (findings N4 and B8).
func TestTheProcessEndsInTimeWithoutRedis(t *testing.T) {
	const timeout = 6 * time.Second
	for _, test := range []struct {
		name string
		args []string
		away func(*testing.T, *redistest.Server, *redistest.Proxy)
	}{
		{"the server hangs", nil, func(_ *testing.T, s *redistest.Server, _ *redistest.Proxy) { s.Pause() }},
		{"a black hole", nil, func(_ *testing.T, _ *redistest.Server, p *redistest.Proxy) { p.Blackhole(true) }},
		{"a refused port", nil, func(_ *testing.T, s *redistest.Server, _ *redistest.Proxy) { s.Kill() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			stolen := redistest.TimeStolen(t)
			server := redistest.Start(t)
			proxy := redistest.NewProxy(t, server.Addr())
			collector, asked := silentServer(t)
			p := startProgram(t, []string{"OTEL_BSP_SCHEDULE_DELAY=10"}, "--redis", "redis://"+proxy.Addr(), "--events",
				"--drain-delay=1s", "--drain-timeout="+timeout.String(),
				"--tracing-endpoint=http://"+collector, "--tracing-sample=1")
			p.awaitReady(t)
			frozenClient(t, p.public, nil)
			if status, err := post(t, p.admin); err != nil || status != http.StatusOK {
				t.Fatalf("publish: %d, %v", status, err)
			}
			<-asked // the collector has the span, and keeps the exporter waiting
			test.away(t, server, proxy)
			go func() { _, _ = post(t, p.admin) }() // waits for Redis
			took, code := p.stop(t)
			// A loaded machine is late to notice the end; what must not be waited for takes longer.
			if took > timeout+2*time.Second+stolen() || code != exitOK {
				t.Errorf("ended after %s with %d:\n%s", took, code, strings.Join(p.said, "\n"))
			}
		})
	}
}

// awaitReady returns when the node is ready.
func (p *program) awaitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond) // between two looks
	defer tick.Stop()
	for askHealth(ctx, "http://"+p.admin+"/readyz") != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the node is not ready")
		}
	}
}

// TestOneHeaderOfAProxyIsBelieved: one that the proxy does not overwrite would be the
// client's own word (finding L4).
func TestOneHeaderOfAProxyIsBelieved(t *testing.T) {
	p := startProgram(t, nil, "--trusted-proxies=127.0.0.1")
	p.awaitReady(t)
	for header, want := range map[string]string{"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "203.0.113.6"} {
		frozenClient(t, p.public, http.Header{header: {"203.0.113.6"}})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.admin+"/v1/users/alice", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+developmentAPIKey)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var user struct{ Sessions []struct{ IP string } }
		if err := json.NewDecoder(resp.Body).Decode(&user); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(user.Sessions, func(s struct{ IP string }) bool { return s.IP == want })
		if i < 0 {
			t.Errorf("%s: no session is listed with %s: %v", header, want, user.Sessions)
		}
	}
}

// TestProfilesDoNotShowTheCommandLine: it is what a flag may have brought (finding L3).
func TestProfilesDoNotShowTheCommandLine(t *testing.T) {
	p := startProgram(t, nil, "--pprof")
	for path, want := range map[string]int{"": http.StatusOK, "goroutine": http.StatusOK, "cmdline": http.StatusNotFound} {
		resp, err := http.Get("http://" + p.admin + "/debug/pprof/" + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("/debug/pprof/%s: %s", path, resp.Status)
		}
	}
}
