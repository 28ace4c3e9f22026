// Package transport is the WebSocket below the protocol: it accepts connections,
// reads and writes them, and keeps them alive. At rest a connection has no
// goroutine, no timer of its own and no buffer. The package knows messages, not
// what they say.
//
// Nothing is shared between connections but bytes that are never written again:
// what one peer sends is decoded by a state machine of that connection alone, and
// what is pooled (read buffers, inflaters) is empty when it is lent.
package transport

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what all connections of a Transport have in common.
type Config struct {
	FrameSize   int      // bytes of a message from a client, at the most
	Outbox      int      // bytes of memory that frames for one connection may take while they wait
	Compression bool     // agree to permessage-deflate
	Origins     []string // patterns of foreign origins that may connect, as in path.Match
	Subprotocol string   // agreed upon if offered
	Budget      *Budget
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
}

// Transport has what connections share: who tells them that there is something to
// read, who reads it, and the clock. Its methods may be called from several
// goroutines.
type Transport struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	workers *workers
	wheel   *wheel
	pollers []*poller
	next    atomic.Uint32 // the poller of the next connection
}

// Handler is the owner of a connection.
type Handler interface {
	// Message is told of a whole message: of text that is UTF-8, or of bytes. One at
	// a time and in order; what it takes time for is not taken for silence of the
	// peer. The data is valid until it returns. If it panics, the connection ends.
	Message(binary bool, data []byte)
	// Alarm is told that the time set with SetAlarm has come. It must not block.
	Alarm()
	// End is told, once, why the connection ends: nothing that is sent from now on
	// reaches the peer. Perhaps a message is still being handled.
	End(*Cause)
	// Gone is told, last, that End and the last Message have returned.
	Gone()
}

// New returns a transport that does nothing until Run.
func New(cfg Config) (*Transport, error) {
	t := &Transport{
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer, cfg.Budget),
		workers: newWorkers(), wheel: newWheel(),
	}
	for range runtime.GOMAXPROCS(0) {
		p, err := newPoller()
		if err != nil {
			return nil, err
		}
		t.pollers = append(t.pollers, p)
	}
	return t, nil
}

// Run runs the clock and the pollers until ctx is done. All connections have to be
// gone by then.
func (t *Transport) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer t.workers.stop()
	for _, p := range t.pollers {
		wg.Go(func() { p.run(ctx) })
	}
	t.wheel.run(ctx)
}

// Work has a task done by a goroutine whose stack has grown. It does not wait.
func (t *Transport) Work(task Task) { t.workers.take(task) }

// Full reports whether there is no memory for more connections.
func (t *Transport) Full() bool { return t.cfg.Budget.Full() }

// Clock returns for how long the process has run, without the time for which it was
// stopped, in steps of a tenth of a second.
func (t *Transport) Clock() time.Duration { return time.Duration(t.wheel.now.Load()) * wheelTick }

// metrics are what the transport counts.
type metrics struct {
	dropped prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, b *Budget) *metrics {
	m := &metrics{dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gateway_outbox_dropped_bytes_total", Help: "Bytes given up in the outboxes of connections that were too slow.",
	})}
	reg.MustRegister(m.dropped,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gateway_client_memory_bytes",
			Help: "Memory held for what clients have sent or have yet to take: outboxes, messages in part or being handled, pages of the history.",
		}, func() float64 { return float64(b.Used()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gateway_client_memory_limit_bytes", Help: "The setting limits.memory, as it is in force.",
		}, func() float64 { return float64(b.Limit()) }),
	)
	return m
}
