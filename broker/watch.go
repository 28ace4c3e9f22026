package broker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
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

// isConfirmed reports whether the present link hears a subscription. One that it does
// not hear is settled when it does: what is published before that would be missed.
func (l *lane) isConfirmed(s *Subscription) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.confirmed
}

// settleAll settles what is queued, until ctx is done.
func (l *lane) settleAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.toSettle.wake:
		}
		subs := slices.DeleteFunc(l.toSettle.take(settleBatch), func(s *Subscription) bool { return !l.isConfirmed(s) })
		if len(subs) == 0 {
			continue
		}
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
			if l.isConfirmed(s) {
				s.settle(heads[i])
			}
		}
	}
}

// head is where a channel stands in Redis.
type head struct {
	id     ID
	exists bool // Redis knows something of the channel
}

// heads returns where channels stand, and has the lane know whether its data are
// still those that it knew.
func (l *lane) heads(ctx context.Context, subs []*Subscription) ([]head, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	args := make([]any, 0, 3+len(subs))
	args = append(args, "MGET", l.b.layout.epoch(l.number), l.tally.key)
	for _, s := range subs {
		args = append(args, l.b.layout.meta(s.name))
	}
	before := l.tally.read()
	reply, err := l.batch.do(ctx, args...)
	if err != nil {
		return nil, err
	}
	values, ok := reply.([]any)
	if !ok || len(values) != 2+len(subs) {
		return nil, fmt.Errorf("unexpected reply %T", reply)
	}
	text, _ := values[1].(string)
	count, _ := strconv.ParseInt(text, 10, 64) // none is 0
	l.tally.check(before, count, before.count, before.newest)
	if err := l.checkEpoch(ctx, values[0]); err != nil {
		return nil, err
	}
	_, base := l.life.known()
	heads := make([]head, len(subs))
	for i, v := range values[2:] {
		if heads[i], err = parseHead(v, base); err != nil {
			return nil, err
		}
		if heads[i].exists {
			l.floor.raise(heads[i].id, l.b.clock.redis(time.Now()))
		}
	}
	return heads, nil
}

// parseHead parses what a channel's meta has to say.
func parseHead(meta any, base ID) (head, error) {
	s, ok := meta.(string)
	if !ok {
		return head{id: base}, nil
	}
	text, _, _ := strings.Cut(s, " ") // what later versions add is ignored
	id, err := ParseID(text)
	if id.Compare(base) < 0 {
		id = base
	}
	return head{id: id, exists: true}, err
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
		if l.number == 0 {
			l.readClock(ctx)
		}
		round := sweep.next(l)
		// Also with none: it reads the epoch. The link tells about a Redis that is away.
		if heads, err := l.heads(ctx, round); err == nil {
			sweep.compare(round, heads)
			l.makeSure(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-l.life.found: // heads looks into it
		}
	}
}

// readClock has the node know Redis's clock. Without an answer it keeps what it
// knew.
func (l *lane) readClock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	master, err := masterOf(ctx, l.rdb, l.tally.key)
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
