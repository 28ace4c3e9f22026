package broker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// lane carries a fixed part of the channels: it keeps one link to Redis open,
// subscribes on it to what the node wants, and after every doubt compares its
// channels with Redis.
type lane struct {
	// Static after newLane.
	b       *Broker
	rdb     redis.UniversalClient
	number  int
	probe   string   // the pub/sub channel on which the node hears itself
	batch   *batcher // for commands with keys of the lane
	durable *batcher // for what has to be on a replica

	// Set by run before anything else can use them.
	ctx  context.Context // ends with run
	work workGroup       // repairs under way

	// Owned by run.
	down    time.Time // since when there is no link; zero: there is one, or never was
	refused time.Time // when it was last logged that Redis refuses a new one

	floor   floor // no id that is issued from now on may be below
	life    life
	tally   tally
	hearing hearing

	mu      sync.Mutex // guards what follows; never held during I/O
	subs    map[string]*Subscription
	closing map[string]bool     // channels being unsubscribed; true: UNSUBSCRIBE was sent
	changed map[string]struct{} // channels for which the link has something to send

	wake     chan struct{} // size 1: changed is not empty
	toSettle settleQueue
}

func newLane(b *Broker, rdb redis.UniversalClient, number int, node string) *lane {
	l := &lane{
		b: b, rdb: rdb, number: number,
		probe:    b.layout.probe(number, node),
		life:     life{found: make(chan struct{}, 1), verdict: make(chan struct{})},
		subs:     make(map[string]*Subscription),
		closing:  make(map[string]bool),
		changed:  make(map[string]struct{}),
		wake:     make(chan struct{}, 1),
		toSettle: settleQueue{wake: make(chan struct{}, 1)},
	}
	l.tally = tally{key: b.layout.tally(number, node), seen: l.floor.get, gone: func(newest ID) { l.life.missing(newest) }}
	l.batch = newBatcher(rdb, &l.tally)
	l.durable = newDurableBatcher(rdb, &l.tally)
	return l
}

// What is waited before a link is opened again, longer each time that fails, so
// that a Redis that is away is not hammered and is noticed soon when it is back.
const (
	reopenPause    = 200 * time.Millisecond
	maxReopenPause = time.Second
)

// run keeps the lane's link open until ctx is done.
func (l *lane) run(ctx context.Context) {
	l.ctx = ctx
	var wg sync.WaitGroup
	wg.Go(func() { l.settleAll(ctx) })
	wg.Go(func() { l.watch(ctx) })
	for range batchWorkers {
		wg.Go(func() { l.batch.run(ctx) })
		wg.Go(func() { l.durable.run(ctx) })
	}
	wait := reopenPause
	for {
		opened, err := l.serveLink(ctx)
		if ctx.Err() != nil {
			break
		}
		l.b.metrics.reopenings[reasonOf(err)].Inc()
		reloadTopology(ctx, l.rdb, err)
		level := slog.LevelDebug // it was said when the link was lost
		if opened || l.down.IsZero() {
			level, wait = slog.LevelWarn, reopenPause
			l.down = time.Now()
		} else if l.refusal(err) {
			level = slog.LevelWarn
		}
		l.b.log.Log(ctx, level, "redis link lost", "lane", l.number, "reason", string(reasonOf(err)), "error", err)
		l.pause(wait)
		wait = min(2*wait, maxReopenPause)
	}
	wg.Wait()
	l.work.Wait()
}

// refusedEvery is how often it is logged that Redis refuses a link: the user may have
// lost its right to the channels.
const refusedEvery = time.Minute

// refusal reports whether a link was refused by Redis and that is to be logged.
func (l *lane) refusal(err error) bool {
	var answer redis.Error
	if !errors.As(err, &answer) || !l.refused.IsZero() && time.Since(l.refused) < refusedEvery {
		return false
	}
	l.refused = time.Now()
	return true
}

// opened takes in that the link stands.
func (l *lane) opened() {
	if !l.down.IsZero() {
		l.b.log.Info("redis link restored", "lane", l.number, "after", time.Since(l.down).Round(time.Millisecond))
		l.down = time.Time{}
	}
}

// pause waits for d and reports whether the lane still runs.
func (l *lane) pause(d time.Duration) bool { return pause(l.ctx, d) }

// pause waits for d and reports whether ctx is not done yet.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// add registers a subscription and has the link subscribe. It reports false if
// the channel has one.
func (l *lane) add(s *Subscription) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.subs[s.name] != nil {
		return false
	}
	l.subs[s.name] = s
	l.change(s.name)
	return true
}

// remove forgets a subscription and has the link unsubscribe.
func (l *lane) remove(s *Subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.subs[s.name] != s {
		return
	}
	delete(l.subs, s.name)
	if s.sent {
		l.closing[s.name] = false
		l.change(s.name)
	} else if _, isClosing := l.closing[s.name]; !isClosing {
		delete(l.changed, s.name) // the link need not hear of it
	}
}

// change tells the link that there is something to send. l.mu is held.
func (l *lane) change(channel string) {
	l.changed[channel] = struct{}{}
	signal(l.wake)
}

// takeChanges returns up to limit pub/sub channels to subscribe and unsubscribe.
// For one channel one of the two is under way at a time: a SUBSCRIBE that
// follows an UNSUBSCRIBE waits for its confirmation.
func (l *lane) takeChanges(limit int) (subscribe, unsubscribe []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for channel := range l.changed {
		if len(subscribe)+len(unsubscribe) == limit {
			signal(l.wake)
			break
		}
		delete(l.changed, channel)
		sent, isClosing := l.closing[channel]
		s := l.subs[channel]
		switch {
		case isClosing && !sent:
			l.closing[channel] = true
			unsubscribe = append(unsubscribe, l.b.layout.live(channel))
		case !isClosing && s != nil && !s.sent:
			s.sent = true
			subscribe = append(subscribe, l.b.layout.live(channel))
		}
	}
	if len(l.changed) == 0 {
		l.changed = make(map[string]struct{}) // let the memory of a large one go
	}
	return subscribe, unsubscribe
}

// restart forgets what the link before had sent: everything is to be subscribed.
func (l *lane) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.closing)
	clear(l.changed)
	for channel, s := range l.subs {
		s.sent, s.confirmed = false, false
		l.change(channel)
	}
}

// confirmed takes in that Redis has subscribed the link to a channel: from here
// on nothing is missed, and what was missed before can be found out. That holds
// for every confirmation, also one that nobody asked for: the client library
// may have reconnected on its own.
func (l *lane) confirmed(channel string) {
	l.mu.Lock()
	s := l.subs[channel]
	if s == nil || !s.sent {
		l.mu.Unlock()
		return
	}
	s.confirmed = true
	l.mu.Unlock()
	if !s.history {
		s.settle(head{})
		return
	}
	s.doubt()
	l.toSettle.add(s)
}

// unsubscribed takes in that Redis has unsubscribed the link. It reports whether
// the lane had asked for it.
func (l *lane) unsubscribed(channel string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing[channel] {
		return false
	}
	delete(l.closing, channel)
	if l.subs[channel] != nil {
		l.change(channel)
	}
	return true
}

// receive hands a pub/sub message to its subscription, which may hold it up.
func (l *lane) receive(live, payload string) {
	if live == l.probe {
		l.hearing.heard()
		return
	}
	channel, _ := l.b.layout.channel(l.number, live)
	l.mu.Lock()
	s := l.subs[channel]
	l.mu.Unlock()
	if s == nil {
		return // unsubscribed, and the message was on its way
	}
	m, err := l.b.decode(payload)
	if err != nil {
		l.b.metrics.malformed.Inc()
		l.b.log.Warn("pub/sub payload dropped", "channel", channel, "error", err)
		return
	}
	now := time.Now()
	l.floor.raise(m.ID, l.b.clock.redis(now))
	l.hearing.handOn(now)
	s.receive(m)
	l.hearing.handedOn()
}

// signal wakes a goroutine that waits on a channel of size 1.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// workGroup is a sync.WaitGroup that starts nothing once it was waited for.
type workGroup struct {
	mu   sync.Mutex
	wg   sync.WaitGroup
	done bool
}

func (g *workGroup) Go(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.done {
		g.wg.Go(f)
	}
}

func (g *workGroup) Wait() {
	g.mu.Lock()
	g.done = true
	g.mu.Unlock()
	g.wg.Wait()
}
