package gateway

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"wssgateway/gateway/wire"
)

const (
	// rosterListed bounds the members that a reply lists: with names of usual
	// length it fits in an outbox several times. The count counts all.
	rosterListed = 10_000
	// rosterAge is for how long an answer is good if nothing is known to have changed.
	rosterAge = time.Second
	// rosterLeastPause and rosterUserPause are the time between two readings of a
	// channel that does change, by how many users are listed: some hundred times
	// what a reading takes of a processor.
	rosterLeastPause = 10 * time.Millisecond
	rosterUserPause  = 100 * time.Microsecond
	// rosterErrorPause is the same when Redis does not answer.
	rosterErrorPause = 100 * time.Millisecond
	// rosterChannels is how many channels may be asked for within a second, and
	// rosterKept how many bytes of answers are kept for who asks next.
	rosterChannels = 16_384
	rosterKept     = 16 << 20
)

var errRosters = errors.New("too many channels are asked for")

// rosters answers who is on a channel. However many clients ask, a channel is read
// from Redis once a second, or more often if it changes, but the less the more users
// it has.
//
// An answer is never older than a change that the asker can know of: whatever a
// feed of this node has handed on, or a session of this node has done, makes what
// was read before stale.
type rosters struct {
	read func(ctx context.Context, channel string) (map[string]int, error)
	life context.Context // of readings

	mu       sync.Mutex // guards what follows
	channels map[string]*roster
	kept     int // bytes
}

// roster is a channel that was asked for within the last second.
type roster struct {
	last  *reading // the last that has begun
	next  *reading // nil unless somebody waits for one that has not begun
	stale bool     // last has begun before the last change
}

// reading is one look at a channel in Redis.
type reading struct {
	began time.Time
	done  chan struct{} // closed when what follows is set

	members string // JSON
	count   int
	err     error
}

func newRosters(g *Gateway) *rosters {
	read := func(ctx context.Context, channel string) (map[string]int, error) {
		return g.broker.Users(ctx, presenceChannel(channel))
	}
	return &rosters{read: read, life: g.life, channels: make(map[string]*roster)}
}

// ask returns who is on a channel. It waits if it has to be read, and somewhat
// longer if it just has been.
func (rs *rosters) ask(ctx context.Context, channel string) (*reading, error) {
	reading, err := rs.join(channel)
	if err != nil {
		return nil, err
	}
	select {
	case <-reading.done:
		return reading, reading.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join returns the reading that answers who asks now.
func (rs *rosters) join(channel string) (*reading, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.channels[channel]
	switch {
	case r == nil && len(rs.channels) >= rosterChannels:
		return nil, errRosters
	case r == nil:
		r = &roster{}
		rs.channels[channel] = r
		rs.begin(channel, r, &reading{done: make(chan struct{})})
		return r.last, nil
	case !r.stale && time.Since(r.last.began) < rosterAge:
		return r.last, nil
	case r.next == nil:
		r.next = &reading{done: make(chan struct{})}
		rs.schedule(channel, r)
	}
	return r.next, nil
}

// begin begins a reading. rs.mu is held.
func (rs *rosters) begin(channel string, r *roster, next *reading) {
	if r.last != nil {
		rs.kept -= len(r.last.members)
	}
	next.began = time.Now()
	r.last, r.next, r.stale = next, nil, false
	go rs.carryOut(channel, r, next)
}

// schedule has the next reading begin when the last one is over and long enough
// ago. rs.mu is held.
func (rs *rosters) schedule(channel string, r *roster) {
	select {
	case <-r.last.done:
	default:
		return // carryOut will
	}
	time.AfterFunc(time.Until(r.last.began.Add(r.last.pause())), func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		rs.begin(channel, r, r.next)
	})
}

// carryOut reads a channel.
func (rs *rosters) carryOut(channel string, r *roster, now *reading) {
	ctx, cancel := context.WithTimeout(rs.life, requestTimeout)
	defer cancel()
	users, err := rs.read(ctx, channel)
	names := slices.Sorted(maps.Keys(users))
	members := rosterMembers(names[:min(len(names), rosterListed)], users)

	rs.mu.Lock()
	defer rs.mu.Unlock()
	now.members, now.count, now.err = members, len(names), err
	close(now.done)
	rs.keep(r, now)
	if r.next != nil {
		rs.schedule(channel, r)
		return
	}
	time.AfterFunc(time.Until(now.began.Add(rosterAge)), func() { rs.forget(channel, r, now) })
}

// keep has a reading answer who asks next, if there is room. rs.mu is held.
func (rs *rosters) keep(r *roster, now *reading) {
	if now.err != nil || rs.kept+len(now.members) > rosterKept {
		r.last = &reading{began: now.began, done: now.done, count: now.count, err: now.err}
		r.stale = true
		return
	}
	rs.kept += len(now.members)
}

// forget is the end of a roster, unless it has been read again, or will be.
func (rs *rosters) forget(channel string, r *roster, last *reading) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.last.done != last.done || r.next != nil {
		return
	}
	rs.kept -= len(r.last.members)
	delete(rs.channels, channel)
}

// changed is told, before clients are, that users have come to a channel or left it.
func (rs *rosters) changed(channel string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r := rs.channels[channel]; r != nil {
		r.stale = true
	}
}

// pause is how long after its beginning the next reading may begin.
func (r *reading) pause() time.Duration {
	if r.err != nil {
		return rosterErrorPause
	}
	return min(rosterAge, rosterLeastPause+time.Duration(r.count)*rosterUserPause)
}

// rosterMembers returns the array of a reply.
func rosterMembers(names []string, users map[string]int) string {
	b := []byte{'['}
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = wire.AppendString(append(b, `{"user":`...), name)
		b = strconv.AppendInt(append(b, `,"sessions":`...), int64(users[name]), 10)
		b = append(b, '}')
	}
	return string(append(b, ']'))
}
