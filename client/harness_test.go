package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"wssgateway/broker"
	"wssgateway/broker/redistest"
	"wssgateway/client"
	"wssgateway/gateway"
	"wssgateway/session"
)

const (
	secret   = "the secret of the client tests, long enough"
	patience = 30 * time.Second
)

// node is a gateway node in this process.
type node struct {
	*gateway.Gateway
	broker *broker.Broker
	addr   string
	stop   func() // drains
}

// startNodes starts nodes on one embedded Redis.
func startNodes(t testing.TB, names ...string) []*node {
	t.Helper()
	addr := redistest.Embedded(t).Addr()
	var nodes []*node
	for _, name := range names {
		rdb := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, MaxRetries: -1, ContextTimeoutEnabled: true})
		t.Cleanup(func() { _ = rdb.Close() })
		nodes = append(nodes, startNode(t, name, rdb))
	}
	return nodes
}

func startNode(t testing.TB, name string, rdb redis.UniversalClient) *node {
	t.Helper()
	cfg := gateway.DefaultConfig()
	cfg.NodeName, cfg.JWTSecret = name, secret
	cfg.DrainDelay, cfg.DrainTimeout = 0, 20*time.Second // the last to move has 2.7 s
	cfg.Classes["small"] = gateway.Class{
		History: gateway.History{Size: 5, TTL: time.Minute}, Subscribe: gateway.AccessAny, Publish: gateway.AccessAny,
	}
	cfg.Classes["deep"] = gateway.Class{ // it outlives any test
		History: gateway.History{Size: 100_000, TTL: time.Hour}, Subscribe: gateway.AccessAny, Publish: gateway.AccessAny,
	}
	cfg.Classes["live"] = gateway.Class{Subscribe: gateway.AccessAny, Publish: gateway.AccessAny}
	cfg.Classes["who"] = gateway.Class{
		History: gateway.History{Size: 5, TTL: time.Minute}, Subscribe: gateway.AccessAny, Publish: gateway.AccessAny, Presence: true,
	}
	log := slog.New(slog.DiscardHandler)
	n := &node{broker: broker.New(rdb, broker.Config{Prefix: cfg.Prefix, Node: fmt.Sprint(name, time.Now().UnixNano()), Logger: log})}
	sessions := session.New(rdb, session.Config{
		Prefix: cfg.Prefix, Node: name, ResumeWindow: cfg.ResumeWindow,
		Gone: func(ctx context.Context, gone []session.Gone) error { return n.Gone(ctx, gone) },
	})
	var err error
	n.Gateway, err = gateway.New(cfg, gateway.Deps{Broker: n.broker, Sessions: sessions, Logger: log, Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	public, admin := listen(t), listen(t)
	n.addr = public.Addr().String()
	parts, stopParts := context.WithCancel(context.Background())
	serving, stopServing := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = n.broker.Run(parts) })
	running.Go(func() { _ = sessions.Run(parts) })
	served := make(chan error, 1)
	go func() { served <- n.Serve(serving, public, admin) }()
	n.stop = sync.OnceFunc(func() {
		stopServing()
		if err := <-served; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		stopParts()
		running.Wait()
	})
	t.Cleanup(n.stop)
	await(t, name+" is ready", func() bool { return n.Ready() == nil })
	return n
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// await waits until ok.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func token(user string, ttl time.Duration) string {
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "subscribe": []string{"*"}, "publish": []string{"*"}, "exp": time.Now().Add(ttl).Unix(),
	}).SignedString([]byte(secret))
	if err != nil {
		panic(err)
	}
	return s
}

// way leads a client's connections to an address, which a test can change, and
// can break the connection that it has.
type way struct {
	mu    sync.Mutex
	to    string
	conns []net.Conn
}

func (w *way) lead(to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
}

func (w *way) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

func (w *way) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		w.mu.Lock()
		to := w.to
		w.mu.Unlock()
		c, err := (&net.Dialer{}).DialContext(ctx, network, to)
		if err == nil {
			w.mu.Lock()
			w.conns = append(w.conns, c)
			w.mu.Unlock()
		}
		return c, err
	}}}
}

// person is a client that runs, and what it was told.
type person struct {
	*client.Client
	way   *way
	ended chan error // size 1: what Run returned
	stop  func()

	tokens atomic.Int32 // asked for

	mu    sync.Mutex // guards what follows
	heard []client.Message
	news  []string
}

// quick is a backoff that does not hold tests up.
var quick = client.Backoff{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond}

// run starts a client of user, after setup. It is stopped when the test ends.
func run(t testing.TB, user, to string, setup func(*person, *client.Options)) *person {
	t.Helper()
	p := &person{way: &way{to: to}, ended: make(chan error, 1)}
	o := client.Options{
		HTTPClient: p.way.client(), Backoff: quick, Inbox: p.handler(), Other: p.handler(),
		Token: func(context.Context) (string, error) {
			p.tokens.Add(1)
			return token(user, time.Hour), nil
		},
		Connected: func(c client.Connected) {
			p.add(fmt.Sprintf("connected to %s resumed %t handover %t", c.Node, c.Resumed, c.Handover))
		},
		Disconnected: func(client.Disconnected) { p.add("disconnected") },
	}
	if setup != nil {
		setup(p, &o)
	}
	var err error
	if p.Client, err = client.New("ws://gateway/ws", o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ended <- p.Run(ctx)
	}()
	p.stop = func() { cancel(); <-done }
	t.Cleanup(p.stop)
	return p
}

// connected waits until the client is connected.
func (p *person) connected(t testing.TB) *person {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.AwaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *person) subscribe(t testing.TB, channel string, since ...string) *client.Subscription {
	t.Helper()
	s, err := p.Subscribe(channel, p.handler(), since...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (p *person) handler() client.Handler {
	return client.Handler{
		Message: func(m client.Message) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.heard = append(p.heard, m)
		},
		Gap:     func(channel, _ string) { p.add("gap " + channel) },
		Joined:  func(channel, user string) { p.add("join " + channel + " " + user) },
		Left:    func(channel, user string) { p.add("leave " + channel + " " + user) },
		Refused: func(channel, code string) { p.add("refused " + channel + " " + code) },
	}
}

func (p *person) add(news string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.news = append(p.news, news)
}

// data returns the data of what was heard on a channel.
func (p *person) data(channel string) (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.heard {
		if m.Channel == channel {
			all = append(all, string(m.Data)+string(m.Bytes))
		}
	}
	return all
}

// told returns how often something was told.
func (p *person) told(news string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.news {
		if one == news {
			n++
		}
	}
	return n
}

// publish publishes numbers, one after the other.
func (p *person) publish(t testing.TB, channel string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := p.Publish(t.Context(), client.Message{Channel: channel, Data: fmt.Append(nil, i)}); err != nil {
			t.Fatalf("publish %d: %v", i, err)
		}
	}
}

// numbers are what publish publishes.
func numbers(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}
