package broker

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// settleBatch is how many channels are compared with Redis in one command.
	settleBatch = 1000
	// watchEvery is how often a lane looks whether Redis still has its data.
	watchEvery = time.Second
	// sweepTurn is how many ticks of watch it takes to compare every channel
	// once: a quiet channel may have lost its last message.
	sweepTurn = 30
)

// settleQueue holds the subscriptions that are to be compared with Redis.
type settleQueue struct {
	mu   sync.Mutex
	subs []*Subscription
	wake chan struct{} // size 1: subs is not empty
}

func (q *settleQueue) add(subs ...*Subscription) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.subs = append(q.subs, subs...)
	signal(q.wake)
}

func (q *settleQueue) take(limit int) []*Subscription {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(limit, len(q.subs))
	taken := q.subs[:n:n]
	if q.subs = q.subs[n:]; len(q.subs) > 0 {
		signal(q.wake)
	} else {
		q.subs = nil // let the backing array go
	}
	return taken
}

// settleAll settles what is queued, until ctx is done.
func (l *lane) settleAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.toSettle.wake:
		}
		subs := l.toSettle.take(settleBatch)
		for _, s := range subs {
			s.ask()
		}
		heads, err := l.heads(ctx, subs)
		if err != nil {
			l.pause(reopenPause)
			l.toSettle.add(subs...)
			continue
		}
		for i, s := range subs {
			s.settle(heads[i].id)
		}
	}
}

// head is where a channel stands in Redis.
type head struct {
	id     ID
	exists bool // Redis knows something of the channel
}

// heads returns where channels stand, and has the lane know its epoch.
func (l *lane) heads(ctx context.Context, subs []*Subscription) ([]head, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	args := make([]any, 0, 2+len(subs))
	args = append(args, "MGET", l.b.layout.epoch(l.number))
	for _, s := range subs {
		args = append(args, l.b.layout.meta(s.name))
	}
	reply, err := l.batch.do(ctx, args...)
	if err != nil {
		return nil, err
	}
	values, ok := reply.([]any)
	if !ok || len(values) != 1+len(subs) {
		return nil, fmt.Errorf("unexpected reply %T", reply)
	}
	if err := l.checkEpoch(ctx, values[0]); err != nil {
		return nil, err
	}
	base := l.baseline()
	heads := make([]head, len(subs))
	for i, v := range values[1:] {
		heads[i].id = base
		if s, ok := v.(string); ok {
			heads[i].exists = true
			id, _, _ := strings.Cut(s, " ") // what later versions add is ignored
			if heads[i].id, err = ParseID(id); err != nil {
				return nil, err
			}
		}
	}
	return heads, nil
}

// checkEpoch takes in the epoch as Redis has it. If it is not the one the lane
// knows, Redis has lost its data, and all that is live is in doubt: before
// anybody else goes by the new epoch.
func (l *lane) checkEpoch(ctx context.Context, epoch any) error {
	l.checking.Lock()
	defer l.checking.Unlock()
	known := l.knownEpoch()
	s, _ := epoch.(string)
	if s == known && s != "" {
		return nil
	}
	reply, err := l.batch.eval(ctx, epochScript, []string{l.b.layout.epoch(l.number)}, known)
	if err != nil {
		return err
	}
	s, _ = reply.(string)
	lost, err := l.setEpoch(s)
	if err != nil || !lost {
		return err
	}
	l.b.metrics.losses.Inc()
	l.b.log.Warn("redis has lost its data", "lane", l.number, "epoch", s)
	l.doubtAll()
	return nil
}

func (l *lane) doubtAll() {
	for _, s := range l.snapshot() {
		if s.history {
			s.doubt()
			l.toSettle.add(s)
		}
	}
}

func (l *lane) snapshot() []*Subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	subs := make([]*Subscription, 0, len(l.subs))
	for _, s := range l.subs {
		subs = append(subs, s)
	}
	return subs
}

// watch looks at Redis once in a while: whether its data are still those the
// lane knows, what its clock says, and, a few at a time, whether the channels
// stand where the node believes them to.
func (l *lane) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var sweep sweep
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if l.number == 0 {
			l.readClock(ctx)
		}
		round := sweep.next(l)
		heads, err := l.heads(ctx, round) // also with none: it reads the epoch
		if err != nil {
			continue // the link tells about a Redis that is away
		}
		sweep.compare(round, heads)
	}
}

// readClock has the node know Redis's clock. Without an answer it keeps what it
// knew.
func (l *lane) readClock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	master, err := masterOf(ctx, l.rdb, l.b.layout.epoch(l.number))
	if err != nil {
		return
	}
	sent := time.Now()
	if at, err := master.Time(ctx).Result(); err == nil {
		l.b.clock.observe(at, sent, time.Now())
	}
}

// sweep is one turn through a lane's channels.
type sweep struct {
	left  []*Subscription
	size  int                  // per tick
	seen  []ID                 // where the channels of this tick stood before Redis was asked
	ahead map[*Subscription]ID // of which Redis had more at the last tick
}

// next returns the channels that are to be looked at now.
func (w *sweep) next(l *lane) []*Subscription {
	if len(w.left) == 0 {
		w.left = l.snapshot()
		w.size = len(w.left)/sweepTurn + 1
	}
	n := min(w.size, len(w.left), settleBatch)
	subs := w.left[:n]
	w.left = w.left[n:]
	w.seen = w.seen[:0]
	for _, s := range subs {
		w.seen = append(w.seen, s.Last())
	}
	return subs
}

// compare looks at this tick's channels, and again at those that were behind at
// the last one.
func (w *sweep) compare(subs []*Subscription, heads []head) {
	for s, id := range w.ahead {
		s.recheck(id)
	}
	w.ahead = make(map[*Subscription]ID)
	for i, s := range subs {
		if s.history && s.compare(w.seen[i], heads[i]) {
			w.ahead[s] = heads[i].id
		}
	}
}
