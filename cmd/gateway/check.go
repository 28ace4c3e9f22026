package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"wssgateway/client"
	"wssgateway/gateway/wire"
)

// checkOptions are the flags of gateway check.
type checkOptions struct {
	API     string        `config:"api" help:"URL of an admin address; publish there as well, as a backend does (with api_key)"`
	Timeout time.Duration `config:"timeout" help:"time that all of it may take"`
}

func defaultCheckOptions() *checkOptions { return &checkOptions{Timeout: 10 * time.Second} }

// checkUser is who the check connects as. One name for all checks: what they
// leave in Redis is a single inbox.
const checkUser = "gateway-check"

// check proves that a gateway does what it is for, as a client sees it: it
// connects, publishes to itself, and waits for what it published.
func check(p process) int {
	address := connectURL
	if len(p.args) > 0 && !strings.HasPrefix(p.args[0], "-") {
		address, p.args = p.args[0], p.args[1:]
	}
	options := defaultCheckOptions()
	cfg, err := load(p.env, p.args, options)
	if err == nil {
		err = options.validate(cfg, address)
	}
	if err != nil {
		p.complain(err)
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(context.Background(), options.Timeout)
	defer cancel()
	c := &checking{url: address, api: options.API, cfg: cfg, out: p.stdout, came: make(chan string, checkBacklog)}
	if err := c.run(ctx); err != nil {
		p.complain(fmt.Errorf("check: %w", err))
		return exitFailed
	}
	return exitOK
}

func (o *checkOptions) validate(cfg *config, address string) error {
	var wrong mistakes
	if o.Timeout <= 0 {
		wrong = append(wrong, "--timeout: must be positive")
	}
	if cfg.JWTSecret == "" && isLocalURL(address) {
		cfg.JWTSecret = developmentSecret
	}
	if cfg.JWTSecret == "" {
		wrong = append(wrong, "jwt_secret (GATEWAY_JWT_SECRET): is required to sign a token, unless the node is on this host")
	}
	if u, err := url.Parse(address); err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		wrong = append(wrong, fmt.Sprintf("%s is not a URL such as %s", quote(address), connectURL))
	}
	if u, err := url.Parse(o.API); o.API != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		wrong = append(wrong, fmt.Sprintf("--api: %s is not a URL such as http://127.0.0.1:9090", quote(o.API)))
	}
	if o.API != "" && cfg.APIKey == "" {
		wrong = append(wrong, "api_key (GATEWAY_API_KEY): is required for --api")
	}
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}

// checkBacklog has room for what other checks publish meanwhile.
const checkBacklog = 64

// checking is one check.
type checking struct {
	url, api string
	cfg      *config
	out      io.Writer
	came     chan string // data of the messages that came

	mu     sync.Mutex // guards what follows
	node   string     // that the check is connected to
	failed error      // why there is no connection
}

func (c *checking) run(ctx context.Context) error {
	talking, end := context.WithCancelCause(ctx)
	defer end(nil)
	conn, err := client.New(c.url, c.client(end))
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		end(conn.Run(running))
	}()
	err = c.talk(talking, conn)
	stop() // ends the session
	<-ended
	if err == nil {
		fmt.Fprintf(c.out, "ok: node %s delivers\n", printable(c.node))
	}
	return err
}

// client returns how the check connects. A token that is refused ends it: the next
// one would be signed with the same secret.
func (c *checking) client(end context.CancelCauseFunc) client.Options {
	return client.Options{
		Token: func(context.Context) (string, error) {
			return signToken(c.cfg, tokenOptions{User: checkUser, TTL: time.Hour, Publish: []string{"*"}}, time.Now())
		},
		Inbox: client.Handler{Message: func(m client.Message) {
			select {
			case c.came <- string(m.Data):
			default: // nobody waits any more, or far too many check at once
			}
		}},
		Connected:    func(now client.Connected) { c.stands(now.Node, nil) },
		Disconnected: func(d client.Disconnected) { c.stands("", d.Err) },
		Failed: func(f client.Failed) {
			c.stands("", f.Err)
			if refusesToken(f.Err) {
				end(f.Err)
			}
		},
	}
}

// stands keeps whether there is a connection, and why not.
func (c *checking) stands(node string, failed error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node, c.failed = node, failed
}

// late returns the error for what has not been done when ctx was done: why the
// client has ended, or has no connection.
func (c *checking) late(ctx context.Context, what string) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %s", c.url, reasonOf(cause))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		return fmt.Errorf("%s within the time", what)
	}
	return fmt.Errorf("%s: %s within the time: %s", c.url, what, reasonOf(c.failed))
}

// talk has a connection show that it works.
func (c *checking) talk(ctx context.Context, conn *client.Client) error {
	began := time.Now()
	if conn.AwaitConnected(ctx) != nil {
		<-ctx.Done() // it is, or will be at once: the client has ended
		return c.late(ctx, "not connected")
	}
	fmt.Fprintf(c.out, "connected to %s in %v\n", c.url, time.Since(began).Round(time.Millisecond))
	err := c.roundTrip(ctx, "as a client", func(note string) error { return c.asClient(ctx, conn, note) })
	if said := (*client.Error)(nil); c.api != "" && errors.As(err, &said) && said.Code == string(wire.Forbidden) {
		fmt.Fprintln(c.out, "clients may not publish to inboxes here (classes.user.publish)")
		err = nil
	}
	if err != nil || c.api == "" {
		return err
	}
	return c.roundTrip(ctx, "through "+c.api, func(note string) error { return c.asBackend(ctx, note) })
}

// roundTrip publishes a note of its own in one way, and waits for it.
func (c *checking) roundTrip(ctx context.Context, way string, publish func(note string) error) error {
	note, began := quote(rand.Text()), time.Now()
	switch err := publish(note); {
	case ctx.Err() != nil:
		return c.late(ctx, "not published "+way)
	case err != nil:
		return fmt.Errorf("publishing %s: %w", way, err)
	}
	if !c.await(ctx, note) {
		return c.late(ctx, "published "+way+", and not received")
	}
	fmt.Fprintf(c.out, "published %s, and received, in %v\n", way, time.Since(began).Round(time.Microsecond))
	return nil
}

// await waits for a note, and reports whether it came.
func (c *checking) await(ctx context.Context, note string) bool {
	for {
		select {
		case got := <-c.came:
			if got == note {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

func (c *checking) asClient(ctx context.Context, conn *client.Client, note string) error {
	_, err := conn.Publish(ctx, client.Message{To: checkUser, Event: "check", Data: json.RawMessage(note)})
	return err
}

func (c *checking) asBackend(ctx context.Context, note string) error {
	body := fmt.Sprintf(`{"to":%q,"event":"check","data":%s}`, checkUser, note)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.api, "/")+"/v1/publish", bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.cfg.APIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // what it says, as far as it came
		return fmt.Errorf("answered %s: %s", resp.Status, printable(string(bytes.TrimSpace(answer))))
	}
	return nil
}

func checkUsage(w io.Writer) {
	fmt.Fprintf(w, `Usage: gateway check [URL] [flags]

Connects to a gateway (%s if there is no URL) as a client, publishes
to itself, and waits for it to come. Exit code 0: the gateway delivers; 1: it does
not. The token is signed with the configured secret.
`, connectURL)
	writeOptions(w, defaultCheckOptions())
}
