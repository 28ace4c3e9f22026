package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var buildDir string

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "gateway"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(code)
}

// binary builds the program, once, and only if a test runs it.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "gateway")
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = errors.New(string(out))
	}
	return path, err
})

// gatewayCommand returns the built program with nothing of ours in its
// environment.
func gatewayCommand(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = slices.Concat([]string{"PATH=" + os.Getenv("PATH")}, env)
	return cmd
}

// result is how a run of the program ended.
type result struct {
	code           int
	stdout, stderr string
}

func runBinary(t *testing.T, env []string, args ...string) result {
	t.Helper()
	cmd := gatewayCommand(t, env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func TestMistakesOfTheCommandLine(t *testing.T) {
	for _, test := range []struct {
		name   string
		args   []string
		stderr string
	}{
		{"unknown command", []string{"sevre"},
			"gateway: \"sevre\": unknown command (did you mean serve?); there are serve, connect, check, token, healthcheck, version, help\n"},
		{"nothing configured", nil,
			"gateway: jwt_secret (GATEWAY_JWT_SECRET): is required\n" +
				"gateway: redis (--redis, GATEWAY_REDIS): is required, for example redis://127.0.0.1:6379\n" +
				"gateway: to try it out, without any configuration: gateway serve --dev\n"},
		{"a password in a flag", []string{"--dev", "--redis", "redis://:hunter2@localhost"},
			"gateway: --redis: a password is not for a flag, which every user of a host can read; set GATEWAY_REDIS, or redis in the YAML file\n"},
		{"an address that is none", []string{"--dev", "--listen", "127.0.0.1:99999"},
			"gateway: --listen: cannot listen on 127.0.0.1:99999: address 99999: invalid port\n"},
		{"a flag without the command", []string{"--dev", "--nope"}, "gateway: --nope: unknown flag\n"},
		{"serve takes no arguments", []string{"serve", "--dev", "now"}, "gateway: \"now\": unexpected argument\n"},
		{"token without a secret", []string{"token", "--user", "alice"},
			"gateway: jwt_secret (GATEWAY_JWT_SECRET): is required to sign a token; --dev uses the development secret\n"},
		{"token without a user", []string{"token", "--dev", "--ttl=-1s"},
			"gateway: --user: is required\ngateway: --ttl: must be positive\n"},
		{"flag of another command", []string{"healthcheck", "--user=alice"}, "gateway: --user: unknown flag\n"},
		{"version with arguments", []string{"version", "please"}, "gateway: version: takes no arguments\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := runBinary(t, nil, test.args...)
			if want := (result{exitUsage, "", test.stderr}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}, {"serve", "--help"}, {"serve", "--listen", ":1", "-h"}} {
		got := runBinary(t, nil, args...)
		if got.code != exitOK || got.stderr != "" {
			t.Errorf("%q: exit %d, stderr %q", args, got.code, got.stderr)
		}
		for _, part := range []string{
			"--drain-delay DURATION, GATEWAY_DRAIN_DELAY", "(default 5s)", "--limits-frame-size SIZE", "(default 64KiB)",
			"jwt_secret in the file, GATEWAY_JWT_SECRET", "history.ttl", "healthcheck",
		} {
			if !strings.Contains(got.stdout, part) {
				t.Errorf("%q: %q is missing", args, part)
			}
		}
		if strings.Contains(got.stdout, "--jwt-secret") {
			t.Errorf("%q: offers a flag for a secret", args)
		}
	}
	if got := runBinary(t, nil, "token", "--help"); got.code != exitOK || !strings.Contains(got.stdout, "--ttl DURATION") {
		t.Errorf("token --help: %+v", got)
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}, {"-v"}} {
		got := runBinary(t, nil, args...)
		if got.code != exitOK || !strings.HasPrefix(got.stdout, "gateway 1.2.3 (commit ") || !strings.Contains(got.stdout, ", go1.") {
			t.Errorf("%+v", got)
		}
	}
}

func TestTokenPrintsOnlyTheToken(t *testing.T) {
	got := runBinary(t, []string{"GATEWAY_JWT_SECRET=" + longSecret, "GATEWAY_ISSUER=us"},
		"token", "--user", "alice", "--ttl=30m", "--subscribe", "room:*,news", "--subscribe=a:*",
		"--publish", "*", "--join", "room:42", "--client=mobile", "--audience=chat")
	if got.code != exitOK || got.stderr != "" || strings.Count(got.stdout, "\n") != 1 {
		t.Fatalf("%+v", got)
	}
	var c claims
	token := strings.TrimSpace(got.stdout)
	_, err := jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return []byte(longSecret), nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer("us"), jwt.WithAudience("chat"), jwt.WithIssuedAt())
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != "alice" || c.ExpiresAt.Sub(c.IssuedAt.Time) != 30*time.Minute || c.Client != "mobile" ||
		!slices.Equal(c.Subscribe, []string{"room:*", "news", "a:*"}) ||
		!slices.Equal(c.Publish, []string{"*"}) || !slices.Equal(c.Join, []string{"room:42"}) {
		t.Errorf("claims %+v", c)
	}
}

func TestTokenOfDevelopmentMode(t *testing.T) {
	got := runBinary(t, nil, "token", "--dev", "--user=bob")
	_, err := jwt.Parse(strings.TrimSpace(got.stdout), func(*jwt.Token) (any, error) { return []byte(developmentSecret), nil })
	if err != nil {
		t.Errorf("%+v: %v", got, err)
	}
}

func TestHealthcheck(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	env := []string{"GATEWAY_ADMIN_LISTEN=:" + port, "HTTP_PROXY=http://127.0.0.1:1"}
	if got := runBinary(t, env, "healthcheck"); got != (result{}) {
		t.Errorf("alive: %+v", got)
	}
	address := "http://127.0.0.1:" + port
	want := result{exitFailed, "", "gateway: healthcheck: " + address + "/readyz: answered 503 Service Unavailable\n"}
	if got := runBinary(t, env, "healthcheck", "--ready"); got != want {
		t.Errorf("not ready: %+v", got)
	}
	server.Close()
	got := runBinary(t, env, "healthcheck")
	if got.code != exitFailed || !strings.HasSuffix(got.stderr, "connection refused\n") || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("dead: %+v", got)
	}
}

func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		":9090": "127.0.0.1:9090", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "127.0.0.1:1",
		"[::1]:1": "[::1]:1", "10.0.0.1:1": "10.0.0.1:1", "admin:1": "admin:1",
	} {
		if got := reachable(addr); got != want {
			t.Errorf("reachable(%q) = %q, want %q", addr, got, want)
		}
	}
}

func TestATakenPortIsOneClearLine(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	addr := listener.Addr().String()
	got := runBinary(t, nil, "--dev", "--listen", addr)
	want := result{exitUsage, "", "gateway: --listen: cannot listen on " + addr + ": address already in use: " +
		"another process has it, perhaps a gateway; stop that one or choose another address\n"}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// startNode starts the program in development mode and returns it when it
// serves, with the address of its admin listener.
func startNode(t *testing.T, args ...string) (cmd *exec.Cmd, admin string) {
	t.Helper()
	cmd = gatewayCommand(t, nil, append([]string{"--dev", "--log-format=json",
		"--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		var entry struct {
			Msg         string `json:"msg"`
			AdminListen string `json:"admin_listen"`
		}
		if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "node started" {
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return cmd, entry.AdminListen
		}
		t.Log(lines.Text())
	}
	t.Fatalf("the node did not start: %v", cmd.Wait())
	return nil, ""
}

func TestServeUntilASignal(t *testing.T) {
	cmd, admin := startNode(t, "--drain-delay=10ms", "--drain-timeout=2s")
	if got := runBinary(t, nil, "healthcheck", "--admin-listen", admin); got != (result{}) {
		t.Errorf("healthcheck: %+v", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
