// Command proxies puts nginx and HAProxy, with the configurations in deploy, in front
// of two gateways, and clients behind them; then the proxy is reloaded, a node is
// restarted, a node is killed, and the proxy is restarted. It says what became of the
// messages, and exits with 1 if anything is not as it should be.
//
//	go run ./examples/proxies              # both, a minute each
//	go run ./examples/proxies -only nginx
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"wssgateway/examples/lab"
)

func main() {
	only := flag.String("only", "", "proxies, separated by commas (all)")
	clients := flag.Int("clients", 200, "clients")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed := false
	for _, p := range proxies() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), p.name) {
			continue
		}
		if err := run(ctx, p, *clients); err != nil {
			failed = true
			fmt.Fprintf(os.Stderr, "proxies: %s: %v\n", p.name, err)
		}
	}
	if failed {
		os.Exit(1)
	}
}

const configuration = `
drain_delay: 2s
drain_timeout: 10s
trusted_proxies: [127.0.0.1]
classes: {"*": {history: {size: 1000}}}
`

// world is two nodes behind a proxy.
type world struct {
	*lab.Lab
	proxy   *proxy
	clients int
	bench   string
}

// step is something that happens while clients are connected.
type step struct {
	name string
	do   func(context.Context) error
	// stays: no connection is to end.
	stays bool
	// moves: clients move before their connection ends.
	moves bool
}

func (w *world) steps() []step {
	return []step{
		{name: "proxy reloaded twice", stays: true, do: func(ctx context.Context) error {
			return errors.Join(w.proxy.reload(ctx), w.proxy.reload(ctx))
		}},
		{name: "node restarted", moves: true, do: func(ctx context.Context) error {
			if _, err := w.Nodes[0].Terminate(); err != nil {
				return err
			}
			return errors.Join(w.Nodes[0].Start(), w.Nodes[0].AwaitReady(ctx))
		}},
		{name: "node killed", do: func(ctx context.Context) error {
			return errors.Join(w.Nodes[1].Kill(), lab.Pause(ctx, time.Second), w.Nodes[1].Start(), w.Nodes[1].AwaitReady(ctx))
		}},
		{name: "proxy restarted", do: func(ctx context.Context) error {
			return errors.Join(w.proxy.kill(), w.proxy.start(ctx))
		}},
	}
}

func run(ctx context.Context, p *proxy, clients int) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	w := &world{proxy: p, clients: clients}
	w.Lab, err = lab.New(ctx, configuration)
	defer func() { err = errors.Join(err, w.Close()) }()
	if err != nil {
		return err
	}
	for _, name := range []string{"gateway-1", "gateway-2"} {
		n, err := w.AddNode(name)
		if err == nil {
			err = n.AwaitReady(ctx)
		}
		if err != nil {
			return err
		}
	}
	if w.bench, err = w.Build(ctx, "wssgateway/cmd/gateway-bench"); err != nil {
		return err
	}
	if err := p.prepare(ctx, w.Nodes); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close(err != nil)) }()
	if err := p.start(ctx); err != nil {
		return err
	}
	fmt.Printf("\n%s (%s): %d clients through wss://%s, two gateways\n", p.name, p.version, clients, p.address)
	if err := w.edge(ctx); err != nil {
		return err
	}
	for _, s := range w.steps() {
		f, doing := w.under(ctx, s.do)
		fmt.Printf("  %-22s %s\n", s.name, f)
		if wrong := s.judge(f); len(wrong) > 0 {
			doing = errors.Join(doing, fmt.Errorf("not as it should be: %s", strings.Join(wrong, ", ")))
		}
		if doing != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.name, doing))
		}
	}
	return err
}

// judge returns what is not as it should be.
func (s step) judge(f lab.Figures) []string {
	wrong := f.Wrong()
	switch moved := f["reconnects"]; {
	case s.stays && moved > 0:
		wrong = append(wrong, "connections ended")
	case s.moves && (moved == 0 || f["of them handovers"] < moved):
		wrong = append(wrong, "clients that had to reconnect")
	case !s.stays && moved == 0:
		wrong = append(wrong, "nothing happened to any client")
	}
	return wrong
}

// under does something while clients are connected and messages flow, and returns
// what they noticed.
func (w *world) under(ctx context.Context, do func(context.Context) error) (lab.Figures, error) {
	c := exec.CommandContext(ctx, w.bench, "roll", "--url", "wss://"+w.proxy.address+"/ws",
		"--api", "http://"+w.Nodes[0].Admin+",http://"+w.Nodes[1].Admin, "--api-key", lab.APIKey, "--jwt-secret", lab.Secret,
		"--connections", fmt.Sprint(w.clients), "--rooms", fmt.Sprint(max(1, w.clients/10)), "--rate", "60", "--duration", "1h", "--json", "-")
	c.Env = append(os.Environ(), "SSL_CERT_FILE="+w.proxy.file("tls.crt"))
	out, in := io.Pipe()
	c.Stdout, c.Stderr = in, in
	if err := c.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.Wait() // its report says it
		_ = in.Close()
	}()
	connected, done := make(chan struct{}), make(chan struct{})
	var f lab.Figures
	var said string
	var err error
	go func() {
		defer close(done)
		f, said, err = lab.ReadRoll(out, func() { close(connected) })
	}()
	const calm = 2 * time.Second
	select {
	case <-connected:
	case <-done:
		return f, fmt.Errorf("the clients did not connect: %w\n%s", err, said)
	}
	doing := errors.Join(lab.Pause(ctx, calm), do(ctx), lab.Pause(ctx, calm), c.Process.Signal(syscall.SIGTERM))
	<-done
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, said)
	}
	return f, errors.Join(doing, err)
}
