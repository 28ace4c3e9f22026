package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"wssgateway/client"
	"wssgateway/gateway"
)

// connectOptions are the flags of gateway connect.
type connectOptions struct {
	User    string   `config:"user" help:"connect as this user, with a token signed here that may subscribe and publish anywhere"`
	Token   string   `config:"token" help:"connect with this token instead"`
	Channel []string `config:"channel" help:"channels to subscribe to; what is typed goes to the first"`
	Device  string   `config:"device" help:"name of this device, for the position of the inbox"`
	JSON    bool     `config:"json" help:"print frames as they come, one a line"`
	Follow  bool     `config:"follow" help:"stay when the input has ended"`
}

// connectURL is where a node in development mode listens.
const connectURL = "ws://127.0.0.1:8080/ws"

// connect is a client for the terminal.
func connect(p process) int {
	address := connectURL
	if len(p.args) > 0 && !strings.HasPrefix(p.args[0], "-") {
		address, p.args = p.args[0], p.args[1:]
	}
	options := &connectOptions{}
	cfg, err := load(p.env, p.args, options)
	if err != nil {
		p.complain(err)
		return exitUsage
	}
	source, err := options.source(cfg, address, p.stderr)
	if err != nil {
		p.complain(err)
		return exitUsage
	}
	t := newTerminal(p.stdout, p.stderr, options.JSON)
	if err := t.open(address, source, options); err != nil {
		p.complain(err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := t.run(ctx, p.stdin, options.Follow); err != nil {
		p.complain(err)
		return exitFailed
	}
	return exitOK
}

// source returns where the client gets its tokens from.
func (o *connectOptions) source(cfg *config, address string, stderr io.Writer) (func(context.Context) (string, error), error) {
	switch {
	case o.Token != "" && o.User != "":
		return nil, errors.New("connect: --user and --token: give one of them")
	case o.Token != "":
		return func(context.Context) (string, error) { return o.Token, nil }, nil
	case o.User == "":
		return nil, errors.New("connect: --user or --token is required")
	}
	if cfg.JWTSecret == "" && isLocalURL(address) {
		cfg.JWTSecret = developmentSecret
		fmt.Fprintln(stderr, "signing with the development secret, as no jwt_secret is configured")
	}
	if cfg.JWTSecret == "" {
		return nil, errors.New("connect: jwt_secret (GATEWAY_JWT_SECRET): is required for --user, unless the node is on this host")
	}
	grant := tokenOptions{User: o.User, TTL: time.Hour, Subscribe: []string{"*"}, Publish: []string{"*"}}
	return func(context.Context) (string, error) { return signToken(cfg, grant, time.Now()) }, nil
}

// isLocalURL reports whether a URL is one of this host.
func isLocalURL(address string) bool {
	u, err := url.Parse(address)
	return err == nil && gateway.IsLoopback(net.JoinHostPort(u.Hostname(), u.Port()))
}

// open makes the client, with all its subscriptions.
func (t *terminal) open(address string, source func(context.Context) (string, error), o *connectOptions) (err error) {
	options := client.Options{
		Token: source, Device: o.Device, Inbox: t.handler(), Other: t.handler(),
		Connected: t.connected, Disconnected: t.disconnected, Failed: t.failed, Goaway: t.goaway,
	}
	if o.JSON {
		options.Frame = t.frame
	}
	if t.client, err = client.New(address, options); err != nil {
		return err
	}
	for _, channel := range o.Channel {
		if err := t.join(channel); err != nil {
			return err
		}
	}
	return nil
}

// run connects, and does what is typed until the input ends or ctx is done.
func (t *terminal) run(ctx context.Context, input io.Reader, follow bool) error {
	interrupted := ctx
	ctx, t.end = context.WithCancelCause(ctx)
	defer t.end(nil)
	ended := make(chan error, 1)
	go func() { ended <- t.client.Run(ctx) }()
	go func() {
		if t.client.AwaitConnected(ctx) != nil {
			return // it is over
		}
		lines := bufio.NewScanner(input)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			t.do(ctx, lines.Text())
		}
		if err := lines.Err(); err != nil {
			t.note("input: %v", err)
		}
		if !follow {
			t.end(nil)
		}
	}()
	if err := <-ended; err != nil {
		return fmt.Errorf("connect: %s", reasonOf(err))
	}
	if err := context.Cause(ctx); interrupted.Err() == nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("connect: %s", reasonOf(err))
	}
	return nil
}

// maxLine is the longest line that may be typed: what no gateway takes.
const maxLine = 64 << 20

func connectUsage(w io.Writer) {
	fmt.Fprintf(w, `Usage: gateway connect [URL] --user NAME [flags]

Connects to a gateway (%s if there is no URL), shows what comes, and publishes what
is typed. It stays connected, over lost connections and rolling updates.
`, connectURL)
	fmt.Fprint(w, typedHelp)
	writeOptions(w, &connectOptions{})
}
