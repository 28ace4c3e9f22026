// Package session is the registry of who is connected where. It lives in
// Redis, where all nodes share it: a session belongs to a user, outlives its
// connection by a window of time, and moves from node to node. A node says that
// it lives by renewing one lease, so what the registry costs while nothing
// happens grows with the nodes, not with the sessions.
//
// Ownership: Claim gives a session to one connection and raises its generation,
// in one script. Whoever has an older generation is told (Evict), and finds out at
// its next write, or when it verifies what it holds: every node does, all the time,
// some sessions after others (verify.go).
//
// Time: windows and leases are measured by Redis's clock alone.
//
// Failure: what is written after the claim is kept and repeated until Redis has
// taken it; what Redis lost is written back. Only Claim and the reading calls
// fail when Redis is away.
package session

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Config says how a node takes part in the registry. What has no meaning as
// zero is set by New to the default that its comment gives.
type Config struct {
	Prefix       string        // of every key
	Node         string        // name of the node; no white space or braces
	Version      string        // of the program, for Nodes
	ResumeWindow time.Duration // kept for a session whose node died (2m)
	Lease        time.Duration // life of a node that no longer renews its lease (10s)
	Heartbeat    time.Duration // between two renewals (3s)

	// Gone is told of sessions that are over, those of dead nodes included, each by
	// one node at a time; it may be called several times at once, and has three
	// seconds each time. What it could not deal with it is told again about ten
	// seconds later, perhaps on another node: those that an error of the type Untold
	// names, or for any other error all. It may be nil.
	Gone func(context.Context, []Gone) error
	// Restored is called when Redis may have lost this node's sessions, or told
	// of them as over, and they are written again. It must not block. It may be
	// nil.
	Restored func()
	// Events has the stream of events written, which backends read.
	Events bool
	// Stats is asked at every heartbeat; it must not block. It may be nil.
	Stats func() Stats
	// Logger may be nil.
	Logger *slog.Logger
	// Registerer may be nil: the metrics are then counted and not shown.
	Registerer prometheus.Registerer
}

// Stats is what a node says of itself at every heartbeat.
type Stats struct {
	Connections, Channels int
	Draining              bool
}

// Holder is the connection that holds a session on this node. Its methods must not
// block, and are called from any goroutine.
type Holder interface {
	// SessionLost says that the session is this connection's no longer. It is
	// called at most once per claim, possibly before Claim has returned.
	SessionLost(Loss)
	// SessionRestored says that Redis had lost the session and has it again.
	// Others may have been told meanwhile that it is over.
	SessionRestored()
}

// Loss is why a connection has lost its session.
type Loss string

// Why sessions are lost.
const (
	LossMoved        Loss = "moved"        // another connection has it
	LossDisconnected Loss = "disconnected" // a backend has ended it (Disconnect)
	// LossForgotten: the node was away from Redis for so long that nobody knows
	// whether the session has been ended.
	LossForgotten Loss = "forgotten"
)

// Registry is this node's view of the registry. All methods may be called from
// several goroutines; Run must be called once.
type Registry struct {
	// Static after New.
	rdb     redis.UniversalClient
	cfg     Config
	keys    layout
	node    NodeID
	started time.Time
	log     *slog.Logger
	metrics *metrics

	claims *claims
	wake   chan struct{} // holds one: there is something to write
	over   chan leases   // holds one: the newest leases, some of which have ended
	ended  chan struct{} // holds one: there is a session that is over
	hurry  chan struct{} // holds one: all that is held is to be verified soon

	eventsEpoch string // of the events in Redis, "" if not known yet; verifyEvents's own

	strange sync.Once // something in Redis that is not ours was told of

	mu         sync.Mutex
	held       holdings              // connected on this node
	dirty      map[*Session]struct{} // not yet written as they are
	touched    []*Session            // changed since writeChanges looked
	departed   []*departed           // oldest first
	obsolete   []string              // entries to take out of the index of lease
	lease      lease
	seen       leases        // as of the last heartbeat
	notes      notes         // that this node has written
	notesEpoch string        // of the notes in Redis; "" if that is not known yet
	indexRetry time.Time     // before that, an index on another server is not written
	renewed    chan struct{} // closed and replaced at every heartbeat that worked
	flushed    chan struct{} // closed and replaced after every batch that was written
}

// New returns the registry of a node that has just started. It does not touch
// Redis: Run does, and nothing can be claimed before. rdb should respect the
// deadlines of contexts and not retry by itself; it stays the caller's.
func New(rdb redis.UniversalClient, cfg Config) *Registry {
	cfg.ResumeWindow = cmp.Or(cfg.ResumeWindow, 2*time.Minute)
	cfg.Lease = cmp.Or(cfg.Lease, 10*time.Second)
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 3*time.Second)
	if cfg.Stats == nil {
		cfg.Stats = func() Stats { return Stats{} }
	}
	if cfg.Restored == nil {
		cfg.Restored = func() {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Registry{
		rdb:     rdb,
		cfg:     cfg,
		keys:    layout{cfg.Prefix},
		started: time.Now(),
		log:     cfg.Logger,
		wake:    make(chan struct{}, 1),
		over:    make(chan leases, 1),
		ended:   make(chan struct{}, 1),
		hurry:   make(chan struct{}, 1),
		held:    newHoldings(),
		notes:   make(notes),
		dirty:   make(map[*Session]struct{}),
		renewed: make(chan struct{}),
		flushed: make(chan struct{}),
	}
	r.claims = newClaims(r)
	r.node = newNodeID(cfg.Node, r.started)
	r.metrics = newMetrics(cfg.Registerer, r.Sessions)
	return r
}

// Node returns the id of this life of the node.
func (r *Registry) Node() NodeID { return r.node }

// Sessions returns the number of sessions connected on this node.
func (r *Registry) Sessions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held.count()
}

// releaseTimeout bounds what Run still does after its context is done.
const releaseTimeout = 2 * time.Second

// Run takes part in the registry until ctx is done: it holds the node's lease,
// writes what changes, and sweeps the sessions of nodes that died. Then it
// writes what is left to write, for two seconds at most, gives up the lease,
// which leaves the sessions that are still held to the resume window, and
// returns nil. It waits for Redis as long as it takes.
func (r *Registry) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { r.holdLease(ctx) })
	loops.Go(func() { r.writeChanges(ctx) })
	loops.Go(func() { r.claims.run(ctx) })
	loops.Go(func() { r.sweepEnded(ctx) })
	loops.Go(func() { r.verifyHeld(ctx) })
	if r.tells() {
		loops.Go(func() { r.tellGone(ctx) })
	}
	loops.Wait()

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := r.release(ctx); err != nil {
		r.log.Warn("lease not given up", "error", err)
	}
	return nil
}
