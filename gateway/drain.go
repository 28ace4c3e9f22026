package gateway

import (
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

// drain takes leave: the node stops being ready, goes on accepting for a while,
// then closes its connections one by one, spread over what is left of the time.
// It never waits for a peer.
func (g *Gateway) drain() {
	start := time.Now()
	deadline := start.Add(g.cfg.DrainTimeout)
	g.phase.Store(int32(phaseDraining))
	g.log.Info("draining", "connections", g.conns.count(), "delay", g.cfg.DrainDelay, "timeout", g.cfg.DrainTimeout)
	time.Sleep(g.cfg.DrainDelay)
	g.phase.Store(int32(phaseRefusing))
	g.conns.stop()

	gone := make(chan struct{})
	go func() {
		defer close(gone)
		g.conns.awaitNone()
	}()
	g.closePaced(deadline)
	select {
	case <-gone:
	case <-time.After(time.Until(deadline)):
	}
	left := g.conns.snapshot()
	g.end()
	for _, c := range left {
		c.socket.cut()
	}
	<-gone
	g.log.Info("drained", "cut", len(left), "took", time.Since(start).Round(time.Millisecond))
}

// closeMargin is left at the end of a drain for peers to answer the close frame.
const closeMargin = 2 * time.Second

// closePaced closes all connections, in random order, evenly until shortly
// before the deadline, or sooner at a rate that nobody minds.
func (g *Gateway) closePaced(deadline time.Time) {
	const easyPace = 20 * time.Millisecond // 50 reconnects a second
	all := g.conns.snapshot()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, c := range all {
		c.fail(causeDrain)
		left := time.Until(deadline) - closeMargin
		time.Sleep(min(easyPace, left/time.Duration(len(all)-i)))
	}
}
