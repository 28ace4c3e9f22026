package session

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Gone is a session that is over: it was ended, or its window has run out.
type Gone struct {
	ID, User string
	Node     string   // name of the node that held it last
	Reason   string   // why its last connection ended
	Channels []string // all that it was subscribed to
}

// reasonNodeLost is the reason of those whose node went without a word.
const reasonNodeLost = "node_lost"

// goneMargin is the least time between noting that a session will be over
// and looking at it: by then the write that ends it was done, or Redis has
// refused it as too late.
const goneMargin = writeTimeout + time.Second

// told is what is kept of a session until it is over. The generation is the first of
// the fields: lua/gone.lua reads it.
type told struct {
	Generation uint64   `json:"generation"`
	User       string   `json:"user"`
	Node       string   `json:"node"`
	Reason     string   `json:"reason"`
	Channels   []string `json:"channels,omitempty"`
}

// tells reports whether anybody wants to know of sessions that are over.
func (r *Registry) tells() bool { return r.cfg.Gone != nil || r.cfg.Events }

// goneCall notes that a session is over in a while, unless it is resumed.
func (r *Registry) goneCall(id string, in time.Duration, t told) *call {
	return newCall(goneAddScript, r.keys.gone(), id, in.Milliseconds(), field(t))
}

// goneCallOf is goneCall for a session of this node. r.mu is held.
func (r *Registry) goneCallOf(s *Session, in time.Duration) *call {
	return r.goneCall(s.ID, in, r.toldOf(s))
}

// goneCallOfEnded notes that a session of this node is over now: a backend has ended
// it. The note takes the place of the one that says so for its last generation, since
// the channels in it are newer.
func (r *Registry) goneCallOfEnded(s *Session) *call {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.toldOf(s)
	t.Generation++
	return r.goneCall(s.ID, 0, t)
}

// toldOf returns what is told of a session of this node. r.mu is held.
func (r *Registry) toldOf(s *Session) told {
	return told{
		Generation: s.Generation, User: s.User, Node: r.cfg.Node, Reason: s.reason,
		Channels: r.channelsOf(s.User, s.ID, s.channels),
	}
}

// Ref names a session, and perhaps where it is said to be.
type Ref struct {
	User, ID string
	// Channel, if not empty, is one on which the session was under Generation.
	Channel    string
	Generation uint64
}

// Alive reports of each session whether it lives: it is connected, or can still
// be resumed. Of one with a channel it says too whether it is there still: a
// session that has moved since, and is not on it under its new owner, is not. It
// asks Redis, and waits a second for a server that does not answer: with an error
// those of which it is not known are said to live, and the others are not held up.
func (r *Registry) Alive(ctx context.Context, refs []Ref) (alive []bool, failed error) {
	alive = make([]bool, len(refs))
	for i, end := range r.ends(ctx, refs, verifyTimeout) {
		if end.err != nil {
			failed = fmt.Errorf("session: read sessions: %w", end.err)
		}
		alive[i] = end.at != 0 || end.err != nil
	}
	return alive, failed
}

// end says of a session when it is over.
type end struct {
	at  int64 // 0 if it is, -1 if it is connected, or else ms of Redis's clock
	err error // why that is not known
}

// ends asks Redis when sessions are over, each server by itself, some at a time; that
// may take so long.
func (r *Registry) ends(ctx context.Context, refs []Ref, timeout time.Duration) []end {
	servers := make(map[string][]int) // indices of refs
	for i, ref := range refs {
		server := r.serverOfUser(ctx, ref.User)
		servers[server] = append(servers[server], i)
	}
	ends := make([]end, len(refs))
	var all sync.WaitGroup
	for _, which := range servers {
		all.Go(func() { r.endsOn(ctx, refs, which, ends, timeout) })
	}
	all.Wait()
	return ends
}

// endsOn asks one server about some of the sessions. Once it does not answer it is not
// asked any more.
func (r *Registry) endsOn(ctx context.Context, refs []Ref, which []int, ends []end, timeout time.Duration) {
	var away error
	for batch := range slices.Chunk(which, batchSize) {
		if away != nil {
			for _, i := range batch {
				ends[i].err = away
			}
			continue
		}
		calls := make([]*call, len(batch))
		for n, i := range batch {
			calls[n] = r.aliveCall(refs[i])
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		if err := r.run(ctx, calls...); err != nil && !answered(err) {
			away = err
		}
		cancel()
		for n, i := range batch {
			ends[i].at, ends[i].err = calls[n].answer.Int64()
		}
	}
}

func (r *Registry) aliveCall(ref Ref) *call {
	channel := ""
	if ref.Channel != "" {
		channel = field(ref.Channel)
	}
	return newCall(aliveScript, r.keys.user(ref.User), ref.ID, channel, ref.Generation)
}
