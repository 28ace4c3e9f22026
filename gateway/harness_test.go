package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"wssgateway/broker"
	"wssgateway/broker/redistest"
	"wssgateway/gateway"
	"wssgateway/session"
)

const (
	testSecret = "a secret for tests, long enough for HS256"
	testAPIKey = "a key for tests, long enough"
	// patience is how long a test waits for what must come: far longer than that takes,
	// as only a test that fails waits so long.
	patience = 30 * time.Second
)

// backends runs a test on each kind of Redis.
func backends(t *testing.T, test func(t *testing.T, connect func() redis.UniversalClient)) {
	t.Run("real", func(t *testing.T) {
		server := redistest.Start(t)
		test(t, func() redis.UniversalClient { return server.Client(t) })
	})
	t.Run("embedded", func(t *testing.T) {
		m := redistest.Embedded(t)
		test(t, func() redis.UniversalClient { return redistest.EmbeddedClient(t, m) })
	})
}

// node is a gateway in this process, on real sockets.
type node struct {
	*gateway.Gateway
	t        testing.TB
	name     string
	url      string // ws://…/ws
	api      string // http://…
	public   string // http://…
	stop     func() // drains, as SIGTERM does, and waits
	metrics  *prometheus.Registry
	sessions *session.Registry
}

func testConfig(name string) gateway.Config {
	cfg := gateway.DefaultConfig()
	cfg.NodeName = name
	cfg.JWTSecret = testSecret
	cfg.APIKey = testAPIKey
	cfg.DrainDelay = 0
	cfg.DrainTimeout = 5 * time.Second
	cfg.Classes["plain"] = gateway.Class{Subscribe: gateway.AccessToken, Publish: gateway.AccessToken}
	cfg.Classes["who"] = gateway.Class{
		History:   gateway.History{Size: 10, TTL: time.Minute},
		Subscribe: gateway.AccessToken, Publish: gateway.AccessAny, Presence: true,
	}
	cfg.Classes["open"] = gateway.Class{
		History:   gateway.History{Size: 10, TTL: time.Minute},
		Subscribe: gateway.AccessAny, Publish: gateway.AccessAny,
	}
	return cfg
}

// startNode starts a node, ready when it returns and stopped when the test ends.
func startNode(t testing.TB, name string, rdb redis.UniversalClient, change ...func(*gateway.Config)) *node {
	t.Helper()
	cfg := testConfig(name)
	for _, f := range change {
		f(&cfg)
	}
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if _, ok := t.(*testing.B); ok {
		log = slog.New(slog.DiscardHandler) // a test's log stays in memory
	}
	log = log.With("node", name)
	n := &node{t: t, name: name, metrics: prometheus.NewRegistry()}
	b := broker.New(rdb, broker.Config{
		Prefix: cfg.Prefix, Node: fmt.Sprintf("%s-%d", name, time.Now().UnixNano()), Logger: log, Registerer: n.metrics,
	})
	n.sessions = session.New(rdb, session.Config{
		Prefix: cfg.Prefix, Node: name, Version: "test", ResumeWindow: cfg.ResumeWindow, Logger: log,
		Stats: func() session.Stats { return n.Stats() }, Registerer: n.metrics,
		Gone:     func(ctx context.Context, gone []session.Gone) error { return n.Gone(ctx, gone) },
		Restored: func() { n.Restored() },
		Events:   cfg.Events, Lease: cfg.Lease, Heartbeat: cfg.Heartbeat,
	})
	var err error
	n.Gateway, err = gateway.New(cfg, gateway.Deps{Broker: b, Sessions: n.sessions, Logger: log, Registry: n.metrics})
	if err != nil {
		t.Fatal(err)
	}
	public, admin := listen(t), listen(t)
	n.url = "ws://" + public.Addr().String() + "/ws"
	n.public = "http://" + public.Addr().String()
	n.api = "http://" + admin.Addr().String()
	n.run(b, public, admin)
	await(t, func() error { return n.Ready() })
	return n
}

// run runs the parts as the command does, in the same order.
func (n *node) run(b *broker.Broker, public, admin net.Listener) {
	partsCtx, stopParts := context.WithCancel(context.Background())
	serveCtx, stopServing := context.WithCancel(context.Background())
	done := make(chan error, 3)
	go func() { done <- b.Run(partsCtx) }()
	go func() { done <- n.sessions.Run(partsCtx) }()
	served := make(chan error, 1)
	go func() { served <- n.Serve(serveCtx, public, admin) }()
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		stopServing()
		if err := <-served; err != nil {
			n.t.Errorf("%s: serve: %v", n.name, err)
		}
		stopParts()
		for range 2 {
			if err := <-done; err != nil {
				n.t.Errorf("%s: %v", n.name, err)
			}
		}
	}
	n.t.Cleanup(n.stop)
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// await waits until f returns nil.
func await(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %v", err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}

// claims are the claims of a test token.
type claims = jwt.MapClaims

// token returns a token for a user who may do anything, changed by more.
func token(user string, more ...claims) string {
	c := claims{"sub": user, "subscribe": []string{"*"}, "publish": []string{"*"}, "exp": time.Now().Add(time.Hour).Unix()}
	for _, m := range more {
		for k, v := range m {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
	}
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(testSecret))
	if err != nil {
		panic(err)
	}
	return s
}

// frame is a frame of the server, decoded.
type frame map[string]any

func (f frame) str(key string) string {
	s, _ := f[key].(string)
	return s
}

// channel returns what a connected frame says of a channel.
func (f frame) channel(name string) frame {
	channels, _ := f["channels"].(map[string]any)
	c, _ := channels[name].(map[string]any)
	return c
}

// client is a WebSocket client that speaks frames, without a policy of its own.
type client struct {
	t    testing.TB
	conn *websocket.Conn
}

// dial connects to a node. Query is what follows the question mark.
func (n *node) dial(t testing.TB, query string, header ...string) *client {
	t.Helper()
	c, resp, err := n.tryDial(t, query, header...)
	if err != nil {
		status := 0
		if resp != nil {
			status = resp.StatusCode
		}
		t.Fatalf("dial %s: status %d: %v", n.name, status, err)
	}
	return c
}

func (n *node) tryDial(t testing.TB, query string, header ...string) (*client, *http.Response, error) {
	t.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, n.url+"?"+query, &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		return nil, resp, err
	}
	conn.SetReadLimit(1 << 24)
	t.Cleanup(func() { conn.CloseNow() })
	return &client{t, conn}, resp, nil
}

// connect connects a user by the query string alone and returns the reply too.
func (n *node) connect(t testing.TB, user, query string) (*client, frame) {
	t.Helper()
	c := n.dial(t, "access_token="+token(user)+"&connect=1&"+query)
	return c, c.expect("connected")
}

// send sends a text frame.
func (c *client) send(format string, args ...any) {
	c.t.Helper()
	if err := c.write(websocket.MessageText, fmt.Sprintf(format, args...)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) write(kind websocket.MessageType, s string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.conn.Write(ctx, kind, []byte(s))
}

// read returns the next frame. A binary one has its bytes under "bytes".
func (c *client) read() (frame, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	kind, b, err := c.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	var raw []byte
	if kind == websocket.MessageBinary {
		line, rest, _ := bytes.Cut(b, []byte{'\n'})
		b, raw = line, rest
	}
	f := frame{}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("frame %q: %w", b, err)
	}
	if kind == websocket.MessageBinary {
		f["bytes"] = string(raw)
	}
	return f, nil
}

// next returns the next frame, which must come.
func (c *client) next() frame {
	c.t.Helper()
	f, err := c.read()
	if err != nil {
		c.t.Fatalf("no frame: %v", err)
	}
	return f
}

// expect returns the next frame, which must be of a type.
func (c *client) expect(kind string) frame {
	c.t.Helper()
	f := c.next()
	if f.str("type") != kind {
		c.t.Fatalf("got %v, want a %s", f, kind)
	}
	return f
}

// expectError returns the next frame, which must be an error with a code.
func (c *client) expectError(code string) frame {
	c.t.Helper()
	f := c.expect("error")
	if f.str("code") != code {
		c.t.Fatalf("got %v, want the code %s", f, code)
	}
	return f
}

// expectClose reads until the server closes, and fails if not with code.
func (c *client) expectClose(code websocket.StatusCode) {
	c.t.Helper()
	if got, err := c.closeCode(); got != code {
		c.t.Fatalf("closed with %d (%v), want %d", got, err, code)
	}
}

// closeCode reads until the server closes, and returns with what code.
func (c *client) closeCode() (websocket.StatusCode, error) {
	for {
		if _, err := c.read(); err != nil {
			return websocket.CloseStatus(err), err
		}
	}
}

// call calls the server API and returns the status and the decoded answer.
func (n *node) call(t testing.TB, method, path, body string) (int, any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, n.api+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testAPIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer any
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatalf("%s %s: %s: %v", method, path, b, err)
	}
	return resp.StatusCode, answer
}

// publish publishes through the server API and returns the id.
func (n *node) publish(t testing.TB, body string) string {
	t.Helper()
	status, answer := n.call(t, "POST", "/v1/publish", body)
	m, _ := answer.(map[string]any)
	if status != http.StatusOK {
		t.Fatalf("publish %s: %d %v", body, status, answer)
	}
	return frame(m).str("id")
}
