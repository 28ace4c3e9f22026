package gateway

import (
	"context"
	"math/rand/v2"
	"time"
)

// phase is where a node is in its life.
type phase int32

const (
	phaseServing  phase = iota
	phaseDraining       // not ready any more, but still accepting: balancers are slow to notice
	phaseRefusing       // connections go
)

func (g *Gateway) draining() bool { return phase(g.phase.Load()) >= phaseDraining }
func (g *Gateway) refusing() bool { return phase(g.phase.Load()) >= phaseRefusing }

// jitteredRetry returns after how many seconds a client that was refused should
// come back, so that all do not come at once.
func jitteredRetry() int { return 1 + rand.IntN(5) }

const (
	// exitMargin is what is kept of the drain timeout for what comes after the
	// last connection: above all the registry's two seconds if Redis is away.
	exitMargin = 2500 * time.Millisecond
	// exitShare bounds it for short timeouts.
	exitShare = 10
	// answerShare is the part of it that peers have to answer the last close
	// frame.
	answerShare = 5
	// drainReport is how often progress is logged.
	drainReport = 5 * time.Second
)

// drainWindow returns over how long connections are moved: what is left of the
// drain timeout when the node begins to refuse, less a margin.
func (c *Config) drainWindow() time.Duration {
	return c.DrainTimeout - c.DrainDelay - c.exitMargin()
}

// exitMargin returns what is kept of the drain timeout for what comes after the window.
func (c *Config) exitMargin() time.Duration {
	return min(exitMargin, (c.DrainTimeout-c.DrainDelay)/exitShare)
}

// drainResult says what became of a connection in a drain.
type drainResult string

const (
	drainMoved  drainResult = "moved"  // or left by itself
	drainClosed drainResult = "closed" // it did not move by its deadline
	drainCut    drainResult = "cut"    // nor did its peer answer the close frame
)

// drain takes leave: the node stops being ready, goes on accepting for a while,
// then asks its clients to move, one by one, spread over what is left of the
// time. It is over when the last has gone, and never waits for a peer.
func (g *Gateway) drain() {
	start := time.Now()
	g.phase.Store(int32(phaseDraining))
	g.metrics.draining.Set(1)
	g.log.Info("draining", "connections", g.conns.count(), "delay", g.cfg.DrainDelay, "timeout", g.cfg.DrainTimeout)
	time.Sleep(g.cfg.DrainDelay)
	g.phase.Store(int32(phaseRefusing))
	g.conns.stop()

	all := g.conns.shuffled()
	closed := g.moveAll(all)
	left := g.conns.snapshot()
	g.end()
	for _, c := range left {
		c.socket.Cut()
	}
	g.conns.awaitNone()
	moved := len(all) - max(closed, len(left))
	closed -= min(closed, len(left))
	g.metrics.drained[drainMoved].Add(float64(moved))
	g.metrics.drained[drainClosed].Add(float64(closed))
	g.metrics.drained[drainCut].Add(float64(len(left)))
	g.log.Info("drained", "moved", moved, "closed", closed, "cut", len(left), "took", time.Since(start).Round(time.Millisecond))
}

// moveAll hands the connections over, and returns when there is none left, or
// when the window is over and peers have had the first part of the margin to
// answer the close frame. closed is how many did not move.
func (g *Gateway) moveAll(all []*conn) (closed int) {
	window := g.cfg.drainWindow()
	ctx, cancel := context.WithTimeout(context.Background(), window+g.cfg.exitMargin()/answerShare)
	defer cancel()
	go func() {
		g.conns.awaitNone() // drain, which waits for none too, outlives it
		cancel()
	}()
	go g.reportDrain(ctx, len(all))
	closed = g.handOver(ctx, all, window, goawayDrain)
	<-ctx.Done()
	return closed
}

// reportDrain logs how far the drain of so many connections is, until ctx is
// done.
func (g *Gateway) reportDrain(ctx context.Context, connections int) {
	tick := time.NewTicker(drainReport)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			left := g.conns.count()
			g.log.Info("draining", "gone", connections-left, "left", left)
		}
	}
}
