package gateway

import (
	"context"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"time"

	"wssgateway/broker"
	"wssgateway/session"
)

// presence has Redis know which of this node's sessions are on which channels.
// What it could not write it keeps, and writes when Redis is back: nobody is
// kept from a channel because of it.
//
// A session is a member from when it subscribes until it unsubscribes or is over;
// that its connection ends, or that it moves, changes nothing.
type presence struct {
	gw      *Gateway
	wake    chan struct{} // size 1: there is something to do
	seed    maphash.Seed
	rosters *rosters
	leaving func() []chan struct{} // slots for leaves of ended sessions, by lane

	// turns are held while a membership of theirs is written, through I/O: what
	// is wanted of one goes to Redis in the order in which it was wanted.
	turns [256]sync.Mutex

	mu      sync.Mutex // guards what follows
	wanted  map[membership]wish
	doubted map[string]struct{} // channels that members of this node may be missing from
	stale   map[string]struct{} // channels that may have members which are over
	entered entered
	wishes  uint64
}

// membership names one session on one channel.
type membership struct{ session, channel string }

// wish is what Redis does not have yet.
type wish struct {
	number  uint64
	session *session.Session
	change  presenceChange
	last    bool // of a session that is not this node's any more: it is not looked at again
}

// presenceBatch is how many changes are on their way at a time: what fills a
// pipeline, and is done before a client runs out of patience.
const presenceBatch = 256

func newPresence(g *Gateway) *presence {
	p := &presence{
		gw:      g,
		seed:    maphash.MakeSeed(),
		rosters: newRosters(g),
		leaving: sync.OnceValue(func() []chan struct{} { return leavingSlots(g.broker) }),
		wake:    make(chan struct{}, 1),
		wanted:  make(map[membership]wish),
		doubted: make(map[string]struct{}),
		stale:   make(map[string]struct{}),
	}
	g.hub.doubted, g.hub.changed = p.doubt, p.rosters.changed
	return p
}

// enter makes a session a member of those of the channels that have presence. It
// returns when Redis knows, or has not answered in time: then it will be told.
func (p *presence) enter(ctx context.Context, s *session.Session, channels ...string) {
	p.change(ctx, s, presenceJoin, channels)
}

// leave ends memberships, in the same way.
func (p *presence) leave(ctx context.Context, s *session.Session, channels ...string) {
	p.change(ctx, s, presenceLeave, channels)
}

func (p *presence) change(ctx context.Context, s *session.Session, change presenceChange, channels []string) {
	due := make(map[membership]wish)
	p.mu.Lock()
	for _, channel := range channels {
		if !p.gw.cfg.class(channel).Presence {
			continue
		}
		p.wishes++
		m, w := membership{s.ID, channel}, wish{number: p.wishes, session: s, change: change}
		p.wanted[m], due[m] = w, w
	}
	p.mu.Unlock()
	if len(due) > 0 && p.write(ctx, due) != nil {
		p.wakeUp()
	}
	for m := range due {
		p.rosters.changed(m.channel)
	}
}

func (p *presence) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// write writes wishes side by side. Those that fail stay.
func (p *presence) write(ctx context.Context, due map[membership]wish) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(due))
	for m, w := range due {
		wg.Go(func() {
			if err := p.writeOne(ctx, m, w); err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	p.gw.metrics.unwritten.Set(float64(p.count()))
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// writeOne writes a wish, after older ones of the same membership, unless there
// is a newer one by then.
func (p *presence) writeOne(ctx context.Context, m membership, w wish) error {
	turn := &p.turns[maphash.Comparable(p.seed, m)%uint64(len(p.turns))]
	turn.Lock()
	defer turn.Unlock()
	if !p.wants(m, w) {
		return nil
	}
	if err := p.carryOut(ctx, m.channel, w); err != nil {
		return err
	}
	p.fulfilled(m, w)
	return nil
}

// carryOut has Redis know what is wished for.
func (p *presence) carryOut(ctx context.Context, channel string, w wish) error {
	s := w.session
	if w.change == presenceLeave {
		return p.tell(ctx, presenceLeave, channel, session.Gone{ID: s.ID, User: s.User}, s.Generation)
	}
	if s.Connected() {
		// The registry has to know first: should the node die, who takes its
		// sessions away finds there what to leave.
		if err := s.AwaitWritten(ctx); err != nil {
			return err
		}
	}
	if s.Connected() { // the write may have found that it is not ours
		err := p.tell(ctx, presenceJoin, channel, session.Gone{ID: s.ID, User: s.User}, s.Generation)
		if err != nil {
			return err
		}
		p.haveEntered(s.ID)
	}
	if s.Connected() {
		return nil
	}
	there, err := p.leaveIfGone(ctx, channel, s)
	if there && !w.last {
		p.lookAgain(s, channel)
	}
	return err
}

// leaveIfGone ends a membership of a session that has ended, or moved, while it was
// entered, be it now or in an attempt without an answer: who told of its end, or its
// new owner who left the channel, may have come before. It reports whether the
// session is there, as far as the registry knows.
func (p *presence) leaveIfGone(ctx context.Context, channel string, s *session.Session) (there bool, err error) {
	alive, err := p.gw.sessions.Alive(ctx, []session.Ref{{
		User: s.User, ID: s.ID, Channel: channel, Generation: s.Generation,
	}})
	if err != nil || alive[0] {
		return err == nil, err
	}
	return false, p.tell(ctx, presenceLeave, channel, session.Gone{ID: s.ID, User: s.User}, s.Generation)
}

// lookAgain has a membership of a session that has moved looked at once more: its new
// owner may just be leaving the channel, and the registry told of it after presence.
func (p *presence) lookAgain(s *session.Session, channel string) {
	time.AfterFunc(requestTimeout, func() {
		p.wish(wish{session: s, change: presenceJoin, last: true}, channel)
		p.wakeUp()
	})
}

// wants reports whether a wish is the last one for its membership.
func (p *presence) wants(m membership, w wish) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wanted[m].number == w.number
}

// tell has Redis know of a change, and others if it is a user that comes. Of users
// that have left tellDepartures tells.
func (p *presence) tell(ctx context.Context, change presenceChange, channel string, s session.Gone, generation uint64) error {
	m := broker.Membership{
		Channel: presenceChannel(channel), Session: s.ID, User: s.User, Generation: generation,
		Payload: presencePayload(presenceJoin, s.User), Patience: departurePatience, Retention: presenceRetention,
	}
	if change == presenceLeave {
		_, err := p.gw.broker.Leave(ctx, m)
		return err
	}
	came, err := p.gw.broker.Enter(ctx, m)
	if came {
		p.gw.metrics.presence[presenceJoin].Inc()
	}
	return err
}

// fulfilled forgets a wish unless there is a newer one.
func (p *presence) fulfilled(m membership, w wish) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted[m].number == w.number {
		delete(p.wanted, m)
	}
}

func (p *presence) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.wanted)
}

// run keeps Redis and clients right about who is there, until ctx is done.
func (p *presence) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if p.gw.cfg.HasPresence() {
		wg.Go(func() { p.tellDepartures(ctx) })
	}
	p.repeat(ctx)
}

// repeat writes what could not be written, and compares with Redis what is in
// doubt, until ctx is done.
func (p *presence) repeat(ctx context.Context) {
	const pause, maxPause = 200 * time.Millisecond, 5 * time.Second
	wait := pause
	for {
		select {
		case <-p.wake:
		case <-ctx.Done():
			return
		}
		// Not all nodes at once, and not before Redis can have come to itself.
		if !sleep(ctx, wait/2+rand.N(wait)) {
			return
		}
		err := errors.Join(p.writeAll(ctx), p.enterAgain(ctx), p.sendAwayAll(ctx))
		if err == nil {
			wait = pause
			continue
		}
		p.gw.log.Debug("presence not written, will repeat", "error", err)
		wait = min(2*wait, maxPause)
		p.wakeUp()
	}
}

// sleep waits, and reports whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// writeAll writes what is wanted now, some at a time.
func (p *presence) writeAll(ctx context.Context) error {
	p.mu.Lock()
	all := make([]map[membership]wish, 0, len(p.wanted)/presenceBatch+1)
	for m, w := range p.wanted {
		if n := len(all); n == 0 || len(all[n-1]) == presenceBatch {
			all = append(all, make(map[membership]wish))
		}
		all[len(all)-1][m] = w
	}
	p.mu.Unlock()
	for _, due := range all {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		err := p.write(ctx, due)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}
