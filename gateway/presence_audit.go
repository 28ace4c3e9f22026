package gateway

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"wssgateway/session"
)

// doubt has a channel compared with Redis soon. The hub calls it, holding locks.
func (p *presence) doubt(channel string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubted[channel] = struct{}{}
	p.wakeUp()
}

// Restored has all channels compared with Redis: the registry says that this
// node's sessions may have been lost there, or told of as over.
func (g *Gateway) Restored() {
	for _, channel := range g.hub.withFeed() {
		g.presence.doubt(channel)
	}
}

// take empties a set of channels.
func (p *presence) take(set *map[string]struct{}) map[string]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := *set
	*set = make(map[string]struct{})
	return taken
}

// enterAgain has this node's sessions on the channels in doubt enter: those that
// Redis knows change nothing. When all nodes must have done so, and written
// their sessions again, those that are over are sent away.
func (p *presence) enterAgain(ctx context.Context) error {
	channels := p.take(&p.doubted)
	if len(channels) == 0 {
		return nil
	}
	// The registry may have lost sessions too; whoever does not find one there
	// takes it for over.
	p.gw.sessions.Verify()
	// A node that has not done so by the end of its lease is dead.
	p.auditAfter(p.gw.cfg.Lease+rand.N(auditSpread), slices.Collect(maps.Keys(channels))...)
	for _, c := range p.gw.conns.snapshot() {
		if c.grant.Load() == nil {
			continue
		}
		for _, m := range c.memberships() {
			if _, ok := channels[m.channel.name]; ok {
				p.wish(wish{session: c.session, change: presenceJoin}, m.channel.name)
			}
		}
	}
	return p.writeAll(ctx)
}

// auditAfter has channels looked through after a while.
func (p *presence) auditAfter(d time.Duration, channels ...string) {
	time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, channel := range channels {
			p.stale[channel] = struct{}{}
		}
		p.wakeUp()
	})
}

// restored has a session enter its channels again, which the registry had lost:
// others may have taken it for over.
func (p *presence) restored(c *conn) {
	for _, m := range c.memberships() {
		p.wish(wish{session: c.session, change: presenceJoin}, m.channel.name)
	}
	p.wakeUp()
}

// lost has the channels of a session that is not this node's any more looked at
// if it entered one lately: that may have reached Redis after its new owner had left
// the channel, or after it was over.
func (p *presence) lost(c *conn) {
	p.mu.Lock()
	lately := p.entered.has(c.session.ID)
	p.mu.Unlock()
	if !lately {
		return
	}
	// The registry knew each channel before the session entered it. The connection's
	// own list has a lock that may not be taken here.
	for _, channel := range c.session.Channels() {
		p.wish(wish{session: c.session, change: presenceJoin}, channel)
	}
	p.wakeUp()
}

// entered are the sessions that entered a channel lately: for longer than it takes
// a node to find out that it has lost a session. What became of older ones shows
// when the channel is audited. Guarded by presence.mu.
type entered struct{ lately, before map[string]struct{} }

// enteredKept is for how long at least a session is among them.
const enteredKept = 30 * time.Second

func (e *entered) has(session string) bool {
	_, lately := e.lately[session]
	_, before := e.before[session]
	return lately || before
}

// haveEntered notes that a session has entered a channel.
func (p *presence) haveEntered(session string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entered.lately == nil {
		p.entered.lately = make(map[string]struct{})
		if p.entered.before == nil {
			time.AfterFunc(enteredKept, p.forgetEntered)
		}
	}
	p.entered.lately[session] = struct{}{}
}

// forgetEntered forgets the older half, until there is none.
func (p *presence) forgetEntered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entered = entered{before: p.entered.lately}
	if p.entered.before != nil {
		time.AfterFunc(enteredKept, p.forgetEntered)
	}
}

// wish has a session enter a channel soon if that has presence, unless there is a
// wish for it, not of an earlier connection. One of a session that the node has lost is
// looked at.
func (p *presence) wish(w wish, channel string) {
	if !p.gw.cfg.class(channel).Presence {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := membership{w.session.ID, channel}
	if known, ok := p.wanted[m]; !ok || known.session.Generation < w.session.Generation {
		p.wishes++
		w.number = p.wishes
		p.wanted[m] = w
	}
}

const (
	// auditEvery is how often the members of a channel in doubt are looked
	// through, by one node for all: longer than the nodes are apart.
	auditEvery  = 10 * time.Second
	auditSpread = auditEvery / 2
)

// audits is how many channels are looked through at a time: for one with sessions on a
// server that hangs that takes a second.
const audits = 16

// sendAwayAll looks through the channels that may have members which are over, until
// some of them fail. What it does not get done remains.
func (p *presence) sendAwayAll(ctx context.Context) (failed error) {
	left := slices.Collect(maps.Keys(p.take(&p.stale)))
	for len(left) > 0 && failed == nil {
		some := left[:min(audits, len(left))]
		left = left[len(some):]
		failed = p.sendAwaySome(ctx, some)
	}
	if len(left) > 0 {
		p.auditAfter(0, left...)
	}
	return failed
}

// sendAwaySome looks through channels side by side. One that fails comes up again when
// it may be looked through again, by this node or another.
func (p *presence) sendAwaySome(ctx context.Context, channels []string) error {
	errs := make([]error, len(channels))
	var wg sync.WaitGroup
	for i, channel := range channels {
		wg.Go(func() {
			if errs[i] = p.sendAway(ctx, channel); errs[i] != nil {
				p.auditAfter(auditEvery, channel)
			}
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// sendAway ends the memberships of sessions that are over, and of those that have
// moved and are not there under their new owner. That was told once; Redis has lost
// what came of it. Sessions of which Redis does not tell hold up no others.
func (p *presence) sendAway(ctx context.Context, channel string) error {
	alone, err := p.gw.broker.Alone(ctx, presenceChannel(channel), auditEvery)
	if err != nil || !alone {
		return err
	}
	members, err := p.gw.broker.Members(ctx, presenceChannel(channel))
	if err != nil {
		return err
	}
	refs := make([]session.Ref, len(members))
	for i, m := range members {
		refs[i] = session.Ref{User: m.User, ID: m.Session, Channel: channel, Generation: m.Generation}
	}
	alive, failed := p.gw.sessions.Alive(ctx, refs)
	for i, m := range members {
		if alive[i] {
			continue
		}
		gone := session.Gone{ID: m.Session, User: m.User}
		if err := p.tell(ctx, presenceLeave, channel, gone, m.Generation); err != nil {
			return err
		}
	}
	return failed
}
