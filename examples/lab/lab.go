// Package lab runs real gateways and a real Redis as processes of their own, for
// programs that show what becomes of messages when these come and go.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Secret and APIKey are those of every node of a Lab.
const (
	Secret = "the secret of the lab, long enough for HS256"
	APIKey = "the key of the lab, long enough"
)

// Token returns a token for a user who may subscribe to anything.
func Token(user string) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "subscribe": []string{"*"}, "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(Secret))
}

// Lab is a folder, a Redis and nodes.
type Lab struct {
	Redis  *Redis
	Nodes  []*Node
	Env    []string // of nodes that start from now on, besides what all have
	dir    string
	binary string
}

// New builds the gateway and starts a Redis. The configuration is that of all
// nodes, in YAML; flags, if any, are those of redis-server in the place of those
// that have it keep its data. Close must be called, also after an error.
func New(ctx context.Context, configuration string, flags ...string) (*Lab, error) {
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		return &Lab{}, err
	}
	l := &Lab{dir: dir}
	if err := os.WriteFile(l.config(), []byte(configuration), 0o600); err != nil {
		return l, err
	}
	if l.binary, err = l.Build(ctx, "wssgateway/cmd/gateway"); err != nil {
		return l, err
	}
	if flags == nil {
		flags = []string{"--save", "", "--appendonly", "yes", "--appendfsync", "everysec"}
	}
	l.Redis = &Redis{dir: dir, flags: flags}
	if err := l.Redis.Start(ctx); err != nil {
		return l, err
	}
	return l, nil
}

// Build builds a command and returns the path of the program, which is there until
// Close. Flags are those of go build.
func (l *Lab) Build(ctx context.Context, command string, flags ...string) (string, error) {
	program := filepath.Join(l.dir, path.Base(command))
	args := slices.Concat([]string{"build", "-o", program}, flags, []string{command})
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", command, err, out)
	}
	return program, nil
}

func (l *Lab) config() string { return filepath.Join(l.dir, "gateway.yaml") }

// AddNode adds a node and starts it.
func (l *Lab) AddNode(name string, flags ...string) (*Node, error) {
	n := &Node{Name: name, lab: l, flags: flags}
	var err error
	if n.Public, err = freeAddr(); err != nil {
		return nil, err
	}
	if n.Admin, err = freeAddr(); err != nil {
		return nil, err
	}
	l.Nodes = append(l.Nodes, n)
	return n, n.Start()
}

// Log returns where the nodes and Redis log to.
func (l *Lab) Log() string { return filepath.Join(l.dir, "log") }

// Close ends all processes and removes what they left.
func (l *Lab) Close() error {
	var err error
	for _, n := range l.Nodes {
		err = errors.Join(err, n.Kill())
	}
	if l.Redis != nil {
		err = errors.Join(err, l.Redis.process.kill())
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}

// Redis is a redis-server.
type Redis struct {
	process
	Version string // of redis-server
	dir     string
	flags   []string
}

// Socket returns the path of the Unix socket that the server listens on.
func (r *Redis) Socket() string { return filepath.Join(r.dir, "redis.sock") }

// Start starts the server, with the data it had.
func (r *Redis) Start(ctx context.Context) error {
	version, err := exec.CommandContext(ctx, "redis-server", "--version").Output()
	if err != nil {
		return fmt.Errorf("redis-server is needed (make deps installs it): %w", err)
	}
	for field := range strings.FieldsSeq(string(version)) {
		if v, ok := strings.CutPrefix(field, "v="); ok {
			r.Version = v
		}
	}
	r.cmd = exec.CommandContext(ctx, "redis-server", append([]string{
		"--port", "0", "--unixsocket", r.Socket(), "--dir", r.dir, "--loglevel", "warning",
	}, r.flags...)...)
	return r.start()
}

// Info returns a section of what the server says of itself (INFO).
func (r *Redis) Info(ctx context.Context, section string) (string, error) {
	out, err := exec.CommandContext(ctx, "redis-cli", "-s", r.Socket(), "info", section).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("redis-cli info: %w: %s", err, out)
	}
	return string(out), nil
}

// Stop ends the server in good order.
func (r *Redis) Stop() error { _, err := r.terminate(); return err }

// Node is a gateway process. It keeps its addresses when it starts again.
type Node struct {
	process
	Name          string
	Public, Admin string // host:port
	lab           *Lab
	flags         []string
}

// Start starts the node; AwaitReady waits until it is of use.
func (n *Node) Start() error {
	log, err := os.OpenFile(n.lab.Log(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	n.cmd = exec.Command(n.lab.binary, append([]string{"serve", "--config", n.lab.config(), "--node-name", n.Name,
		"--redis", "unix://" + n.lab.Redis.Socket(), "--listen", n.Public, "--admin-listen", n.Admin}, n.flags...)...)
	n.cmd.Env = append(os.Environ(), "GATEWAY_JWT_SECRET="+Secret, "GATEWAY_API_KEY="+APIKey)
	n.cmd.Env = append(n.cmd.Env, n.lab.Env...)
	n.cmd.Stderr = log
	return n.start()
}

// Terminate sends SIGTERM and waits for the end. It returns the exit code.
func (n *Node) Terminate() (code int, err error) { return n.terminate() }

// Kill ends the node with SIGKILL.
func (n *Node) Kill() error { return n.kill() }

// Ready reports whether the node wants to have connections.
func (n *Node) Ready() bool {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + n.Public + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// AwaitReady waits until the node is ready.
func (n *Node) AwaitReady(ctx context.Context) error {
	for !n.Ready() {
		if err := Pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%s is not ready: %w", n.Name, err)
		}
	}
	return nil
}

// callTimeout is what a backend waits for an answer of the server API.
const callTimeout = 5 * time.Second

// Publish publishes through the server API and returns the id.
func (n *Node) Publish(ctx context.Context, body []byte) (id string, err error) {
	var answer struct{ ID string }
	err = n.Call(ctx, "/v1/publish", body, &answer)
	return answer.ID, err
}

// Call posts to the server API and decodes the answer, if it is wanted.
func (n *Node) Call(ctx context.Context, path string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.Admin+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+APIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%s: %s: %s", path, resp.Status, b)
	case answer == nil:
		return nil
	}
	return json.Unmarshal(b, answer)
}

// process is a process that can be started again.
type process struct {
	cmd *exec.Cmd
}

// PID returns the process id, while the process runs.
func (p *process) PID() int { return p.cmd.Process.Pid }

func (p *process) start() error {
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is ours to handle
	return p.cmd.Start()
}

func (p *process) terminate() (code int, err error) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	err = p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil
	}
	return p.cmd.ProcessState.ExitCode(), err
}

func (p *process) kill() error {
	if p.cmd == nil || p.cmd.Process == nil || p.cmd.ProcessState != nil {
		return nil // it has never run, or has ended
	}
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = p.cmd.Wait() // says "killed"
	return nil
}

// freeAddr returns an address on which nobody listens right now.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// Pause waits for d, or until ctx is done.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
