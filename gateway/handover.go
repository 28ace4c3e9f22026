package gateway

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"wssgateway/gateway/wire"
)

// goawayReason says why clients are asked to move.
type goawayReason string

const (
	goawayDrain     goawayReason = "drain"     // the node goes
	goawayRebalance goawayReason = "rebalance" // other nodes have room
)

// cause returns why a connection ends that was asked to move and did not.
func (r goawayReason) cause() cause {
	if r == goawayRebalance {
		return causeRebalance
	}
	return causeDrain
}

// farewell is what a connection is told when it is asked to move.
type farewell struct {
	reason   goawayReason
	move     time.Time // when its client is to open another connection
	deadline time.Time // when it is closed if it is still there
}

// step is one thing to do in a handover: ask one of its connections to move
// (ask), or close it if it has not moved (else). Times count from the start.
type step struct {
	at        time.Duration
	ask       bool
	conn      int           // index
	move, end time.Duration // of an ask
}

const (
	// moveShare is the part of a handover's window over which clients are asked
	// to move, evenly. Each has what is left as a grace, so those that do not
	// move are closed just as evenly, and not all at the end.
	moveShare = 0.85
	// noticeShare is the part of the window by which a client may know ahead.
	noticeShare = 0.1
)

// planHandover plans to move n connections within a window: clients move at even
// distances, at 1/moveShare times the mean rate. What they are told goes out a
// little before, by a random time, so that it is spread too.
func planHandover(n int, window time.Duration) []step {
	steps := make([]step, 0, 2*n)
	grace := window - time.Duration(moveShare*float64(window))
	for i := range n {
		move := time.Duration(float64(i) / float64(n) * moveShare * float64(window))
		notice := rand.N(1 + min(move, time.Duration(noticeShare*float64(window))))
		steps = append(steps,
			step{at: move - notice, ask: true, conn: i, move: move, end: move + grace},
			step{at: move + grace, conn: i})
	}
	slices.SortFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	return steps
}

// handOver moves connections to other nodes, in the order they are given,
// evenly over a window. It returns when ctx is done or each has moved or was
// closed; closed is how many were. It never waits for a peer.
func (g *Gateway) handOver(ctx context.Context, conns []*conn, window time.Duration, reason goawayReason) (closed int) {
	start := time.Now()
	wait := time.NewTimer(0)
	defer wait.Stop()
	for _, s := range planHandover(len(conns), window) {
		wait.Reset(time.Until(start.Add(s.at)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			return closed
		}
		c := conns[s.conn]
		switch {
		case s.ask:
			c.goAway(farewell{reason, start.Add(s.move), start.Add(s.end)})
		case c.fail(reason.cause()):
			closed++
		}
	}
	return closed
}

// goAway asks the client to move, once it is connected.
func (c *conn) goAway(f farewell) {
	c.mu.Lock()
	c.farewell = &f
	welcomed := c.welcomed
	c.mu.Unlock()
	if welcomed {
		c.sendFarewell(f)
	}
}

// welcomeOver notes that the client has its connected frame. From then on it can
// be asked to move; perhaps it has to be at once.
func (c *conn) welcomeOver() {
	c.mu.Lock()
	c.welcomed = true
	f := c.farewell
	c.mu.Unlock()
	if f != nil {
		c.sendFarewell(*f)
	}
}

func (c *conn) sendFarewell(f farewell) {
	c.gw.metrics.goaways[f.reason].Inc()
	c.send(wire.NewObject("goaway", "").Str("reason", string(f.reason)).
		Int("after_ms", max(0, time.Until(f.move).Milliseconds())).
		Int("deadline_ms", max(0, time.Until(f.deadline).Milliseconds())))
}

// shuffled returns the connections of the node in random order.
func (s *conns) shuffled() []*conn {
	all := s.snapshot()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}
