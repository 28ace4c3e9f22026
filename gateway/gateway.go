// Package gateway is the edge: it accepts WebSocket connections and speaks the
// protocol gateway.v1 with them, fans messages out to them, and serves the HTTP
// endpoints. What goes between nodes it leaves to the packages broker and
// session.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"wssgateway/broker"
	"wssgateway/gateway/transport"
	"wssgateway/gateway/wire"
	"wssgateway/session"
)

// Deps are the parts that a Gateway works with. All are required that do not say
// otherwise.
type Deps struct {
	Broker   *broker.Broker
	Sessions *session.Registry
	Logger   *slog.Logger
	Registry *prometheus.Registry // served at /metrics
	Console  http.Handler         // served at / if not nil
	Tracer   trace.Tracer         // follows messages if not nil
	// Trouble says why Redis does not answer, if anybody knows, in words that may be
	// shown to everybody. It must not block; it may be nil.
	Trouble func() error
}

// Gateway is one node.
type Gateway struct {
	// Static after New.
	cfg       Config
	broker    *broker.Broker
	sessions  *session.Registry
	log       *slog.Logger
	metrics   *metrics
	verifier  *verifier
	hub       *hub
	transport *transport.Transport
	budget    *transport.Budget // of memory, for outboxes and pages
	conns     *conns
	control   *control
	presence  *presence
	calls     *calls
	refusals  refusals // of API calls
	crowded   refusals // of handshakes, for want of memory
	// rebalances holds one: the last order to move a share of the connections.
	rebalances chan float64
	public     http.Handler
	admin      http.Handler
	trouble    func() error // Deps.Trouble

	phase atomic.Int32       // a phase
	life  context.Context    // ends when nothing is waited for any more
	end   context.CancelFunc // ends life
}

// New returns a gateway that does nothing until Serve.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	conns := newConns()
	m := newMetrics(deps.Registry, conns.count)
	g := &Gateway{
		cfg:        cfg,
		broker:     deps.Broker,
		sessions:   deps.Sessions,
		log:        deps.Logger,
		metrics:    m,
		verifier:   newVerifier(&cfg),
		conns:      conns,
		rebalances: make(chan float64, 1),
		budget:     transport.NewBudget(cfg.memory()),
	}
	registerReady(deps.Registry, g.Ready)
	if g.trouble = deps.Trouble; g.trouble == nil {
		g.trouble = func() error { return nil }
	}
	g.calls = newCalls(g)
	g.control = &control{broker: deps.Broker, sessions: deps.Sessions, log: deps.Logger, rebalance: g.rebalance}
	g.life, g.end = context.WithCancel(context.Background())
	var err error
	if g.transport, err = transport.New(transport.Config{
		FrameSize: int(cfg.Limits.FrameSize), Outbox: int(cfg.Limits.Outbox), Compression: cfg.Compression,
		Origins: cfg.Origins, Subprotocol: wire.Subprotocol, Budget: g.budget, Logger: deps.Logger, Registerer: deps.Registry,
	}); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	g.hub = newHub(deps.Broker, m, deps.Logger)
	g.hub.packs, g.hub.tracing = cfg.Compression, newTracing(deps.Tracer)
	g.presence = newPresence(g)
	if g.public, err = g.publicHandler(deps.Console); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if g.admin, err = g.adminHandler(deps.Registry); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return g, nil
}

// requestContext bounds what one request waits for Redis.
func (g *Gateway) requestContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(g.life, requestTimeout)
}

// Stats returns what the node says of itself in the registry.
func (g *Gateway) Stats() session.Stats {
	return session.Stats{
		Connections: g.conns.count(),
		Channels:    g.hub.count(),
		Draining:    g.draining(),
	}
}

// Serve serves until ctx is done, then drains, which takes the drain timeout at
// the most, and returns nil. It closes the listeners. Should one of them fail,
// Serve drains too and returns the error.
func (g *Gateway) Serve(ctx context.Context, public, admin net.Listener) error {
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopInner()
	wg.Go(func() { g.transport.Run(inner) })
	wg.Go(func() { g.hub.run(inner) })
	wg.Go(func() { g.control.run(inner) })
	wg.Go(func() { g.presence.run(inner) })
	wg.Go(func() { g.calls.run(inner) })
	serving, stopServing := context.WithCancel(inner)
	defer stopServing()
	wg.Go(func() { g.rebalancer(serving) })

	failed := make(chan error, 2) // one per server
	servers := []*http.Server{g.publicServer(), g.adminServer()}
	for i, ln := range []net.Listener{public, admin} {
		wg.Go(func() {
			if err := servers[i].Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("gateway: serve %s: %w", ln.Addr(), err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stopServing()
	// Half of the margin is for what the process needs afterwards.
	deadline := time.Now().Add(g.cfg.DrainTimeout - g.cfg.exitMargin()/2)
	g.drain()
	closing, cancel := context.WithTimeout(context.Background(), min(closeTimeout, time.Until(deadline)))
	defer cancel()
	for _, s := range servers {
		err = errors.Join(err, closeServer(closing, s))
	}
	return err
}

// What a client of the public listener has to take an answer in, and one of the
// admin listener to send a request and to take the answer to it. The latter are
// backends, which send up to sixteen times limits.frame_size at once. A profile
// takes as long as it was asked to: net/http/pprof adds that to adminWrite.
const (
	publicWrite = 10 * time.Second
	adminRead   = 30 * time.Second
	adminWrite  = adminRead + 2*requestTimeout
)

// publicServer returns the server of what clients ask. A connection that has
// become a WebSocket has none of its deadlines any more: taking it over from
// net/http clears them.
func (g *Gateway) publicServer() *http.Server {
	s := g.server(g.public)
	s.ReadTimeout, s.WriteTimeout = g.cfg.HandshakeTimeout, publicWrite
	return s
}

// adminServer returns the server of what operators and backends ask.
func (g *Gateway) adminServer() *http.Server {
	s := g.server(g.admin)
	s.ReadTimeout, s.WriteTimeout = adminRead, adminWrite
	return s
}

// server returns an HTTP server with bounds on what a client can hold up. The
// contexts of its requests end with the node's life.
func (g *Gateway) server(h http.Handler) *http.Server {
	const (
		maxHeader   = 32 << 10 // a token may come in the query string, and again in a header
		idleTimeout = time.Minute
	)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: g.cfg.HandshakeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return g.life },
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
}

// closeTimeout is what requests that are under way have to end, if the drain has left
// that much: none of them waits for Redis any more.
const closeTimeout = time.Second

// closeServer lets requests that are under way end, until ctx is done.
// WebSockets are not among them: they are gone. Who has connected and asked for
// nothing, which Shutdown takes for a request, is cut off and nobody's mistake.
func closeServer(ctx context.Context, s *http.Server) error {
	err := s.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close()
	}
	if err != nil {
		return fmt.Errorf("gateway: shutdown: %w", err)
	}
	return nil
}
