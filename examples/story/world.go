package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	secret = "the secret of the story"
	apiKey = "the key of the story"
)

// world is the processes of the story.
type world struct {
	dir          string
	redis        *exec.Cmd
	redisVersion string
	gateways     []*gateway
}

// newWorld builds the gateway and starts everything. It returns once both
// gateways are ready.
func newWorld(ctx context.Context) (w *world, err error) {
	dir, err := os.MkdirTemp("", "story")
	if err != nil {
		return nil, err
	}
	w = &world{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := w.startRedis(ctx); err != nil {
		return w, err
	}
	// As much is kept as alice may miss; what is kept is all that can be replayed.
	config := "classes: {room: {history: {size: 2000}}}\n"
	if err := os.WriteFile(w.config(), []byte(config), 0o600); err != nil {
		return w, err
	}
	binary := filepath.Join(dir, "gateway")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "wssgateway/cmd/gateway").CombinedOutput(); err != nil {
		return w, fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	for _, name := range []string{"gateway-1", "gateway-2"} {
		g, err := w.startGateway(binary, name)
		if err != nil {
			return w, err
		}
		w.gateways = append(w.gateways, g)
	}
	for _, g := range w.gateways {
		if err := g.awaitReady(ctx); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *world) socket() string { return filepath.Join(w.dir, "redis.sock") }

func (w *world) config() string { return filepath.Join(w.dir, "gateway.yaml") }

func (w *world) startRedis(ctx context.Context) error {
	version, err := exec.CommandContext(ctx, "redis-server", "--version").Output()
	if err != nil {
		return fmt.Errorf("redis-server is needed (make deps installs it): %w", err)
	}
	for field := range strings.FieldsSeq(string(version)) {
		if v, ok := strings.CutPrefix(field, "v="); ok {
			w.redisVersion = v
		}
	}
	w.redis = exec.Command("redis-server", "--port", "0", "--unixsocket", w.socket(), "--dir", w.dir, "--save", "", "--appendonly", "no")
	return w.redis.Start()
}

// close ends all processes and removes what they left.
func (w *world) close() error {
	var err error
	for _, g := range w.gateways {
		err = errors.Join(err, g.kill())
	}
	if w.redis != nil && w.redis.Process != nil {
		err = errors.Join(err, kill(w.redis))
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// kill ends a process with SIGKILL.
func kill(cmd *exec.Cmd) error {
	if cmd.ProcessState != nil {
		return nil // it has ended
	}
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	_ = cmd.Wait() // says "killed"
	return nil
}

// gateway is a gateway process.
type gateway struct {
	name          string
	cmd           *exec.Cmd
	public, admin string // host:port
}

func (w *world) startGateway(binary, name string) (*gateway, error) {
	g := &gateway{name: name}
	var err error
	if g.public, err = freeAddr(); err != nil {
		return nil, err
	}
	if g.admin, err = freeAddr(); err != nil {
		return nil, err
	}
	g.cmd = exec.Command(binary, "serve", "--config", w.config(), "--node-name", name, "--redis", "unix://"+w.socket(),
		"--listen", g.public, "--admin-listen", g.admin, "--log-level", "error")
	g.cmd.Env = append(os.Environ(), "GATEWAY_JWT_SECRET="+secret, "GATEWAY_API_KEY="+apiKey)
	g.cmd.Stderr = os.Stderr
	return g, g.cmd.Start()
}

func (g *gateway) kill() error { return kill(g.cmd) }

func (g *gateway) awaitReady(ctx context.Context) error {
	for {
		resp, err := http.Get("http://" + g.admin + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("%s is not ready: %w", g.name, err)
		}
	}
}

// freeAddr returns an address on which nobody listens right now.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
