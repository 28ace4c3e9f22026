package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
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

const (
	// goneEvery is how often a node looks whether a window has run out.
	goneEvery = time.Second
	// goneBatch is how many sessions a node takes at a time.
	goneBatch = 256
	// goneHold is how long they are its alone: what it has not settled by then,
	// another node takes.
	goneHold = 10 * time.Second
	// goneMargin is the least time between noting that a session will be over
	// and looking at it: by then the write that ends it was done, or Redis has
	// refused it as too late.
	goneMargin = writeTimeout + time.Second
)

// told is what is kept of a session until it is over.
type told struct {
	User     string          `json:"user"`
	Node     string          `json:"node"`
	Reason   string          `json:"reason"`
	Channels json.RawMessage `json:"channels,omitempty"` // as list encodes them
}

// tells reports whether anybody wants to know of sessions that are over.
func (r *Registry) tells() bool { return r.cfg.Gone != nil || r.cfg.Events }

// goneCall notes that a session is over in a while, unless it is resumed.
func (r *Registry) goneCall(id string, in time.Duration, t told) *call {
	return newCall(goneAddScript, r.keys.gone(), id, in.Milliseconds(), field(t))
}

// goneCallOf is goneCall for a session of this node. r.mu is held.
func (r *Registry) goneCallOf(s *Session, in time.Duration) *call {
	return r.goneCall(s.ID, in, told{s.User, r.cfg.Node, s.reason, json.RawMessage(s.channels)})
}

// leftOutside returns the call that notes a session which leave.lua has left,
// or nil if that was not for it to do.
func (r *Registry) leftOutside(left *call, id, user, node string, seen leases) (*call, error) {
	f, err := left.fields(0)
	if err != nil || len(f) < 2 {
		return nil, err
	}
	ends, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	in := time.Duration(max(0, ends-seen.clock(time.Now()))) * time.Millisecond
	channels, _ := parseChannels(f[1])
	return r.goneCall(id, in, told{user, node, reasonNodeLost, json.RawMessage(channels)}), nil
}

// tellGone looks for sessions that are over and tells of each once, until ctx is
// done. Every node does, and whoever takes one has it to itself.
func (r *Registry) tellGone(ctx context.Context) {
	failing := false
	for {
		pause := time.NewTimer(goneEvery - rand.N(goneEvery/4))
		select {
		case <-r.ended:
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		pause.Stop()
		err := r.tellAll(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			r.log.Warn("sessions that are over not told of, will repeat", "error", err)
		}
		failing = err != nil
	}
}

// tellAll tells of all that are over by now.
func (r *Registry) tellAll(ctx context.Context) error {
	for {
		n, err := r.tellBatch(ctx)
		if err != nil || n < goneBatch {
			return err
		}
	}
}

// tellBatch takes some of the sessions whose time has come, finds out which are
// over, and tells of them. It returns how many it took.
func (r *Registry) tellBatch(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, goneHold/2)
	defer cancel()
	take := newCall(goneTakeScript, r.keys.gone(), goneBatch, goneHold.Milliseconds())
	if err := r.run(ctx, take); err != nil {
		return 0, fmt.Errorf("take sessions: %w", err)
	}
	f, err := take.fields(1)
	if err != nil || len(f) == 1 {
		return 0, err
	}
	ticket, f := f[0], f[1:]
	over, settled, err := r.sort(ctx, parseGone(f))
	if err != nil {
		return 0, err
	}
	if err := r.tell(ctx, over); err != nil {
		return 0, err
	}
	for _, g := range over {
		settled = append(settled, g.ID, 0)
	}
	args := append([]any{ticket}, settled...)
	if err := r.run(ctx, newCall(goneDoneScript, r.keys.gone(), args...)); err != nil {
		return 0, fmt.Errorf("settle sessions: %w", err)
	}
	return len(f) / 2, nil
}

// parseGone parses ids and what is told of them, one after another.
func parseGone(f []string) []Gone {
	var all []Gone
	for ; len(f) >= 2; f = f[2:] {
		var t told
		_ = json.Unmarshal([]byte(f[1]), &t) // of what is damaged the rest is told
		all = append(all, Gone{f[0], t.User, t.Node, t.Reason, unlist(string(t.Channels))})
	}
	return all
}

// sort returns the sessions that are over. Of the others, those that have been
// resumed need not be looked at again, and those whose window has been renewed
// at its end: settled has them as gone_done.lua wants it.
func (r *Registry) sort(ctx context.Context, taken []Gone) (over []Gone, settled []any, err error) {
	refs := make([]Ref, len(taken))
	for i, g := range taken {
		refs[i] = Ref{g.User, g.ID}
	}
	ends, err := r.ends(ctx, refs)
	if err != nil {
		return nil, nil, fmt.Errorf("read sessions: %w", err)
	}
	for i, g := range taken {
		switch {
		case ends[i] == 0:
			over = append(over, g)
		case ends[i] < 0:
			settled = append(settled, g.ID, 0)
		default:
			settled = append(settled, g.ID, ends[i])
		}
	}
	return over, settled, nil
}

// tell tells of sessions that are over.
func (r *Registry) tell(ctx context.Context, over []Gone) error {
	if len(over) == 0 {
		return nil
	}
	if r.cfg.Gone != nil {
		if err := r.cfg.Gone(ctx, over); err != nil {
			return fmt.Errorf("tell: %w", err)
		}
	}
	if r.cfg.Events {
		calls := make([]*call, len(over))
		for i, g := range over {
			calls[i] = r.eventCall(eventDisconnected, g.ID, g.User, g.Node, g.Reason)
		}
		if err := r.run(ctx, calls...); err != nil {
			return fmt.Errorf("write events: %w", err)
		}
	}
	r.metrics.gone.Add(float64(len(over)))
	return nil
}

// Ref names a session.
type Ref struct{ User, ID string }

// Alive reports of each session whether it lives: it is connected, or can still
// be resumed. It asks Redis.
func (r *Registry) Alive(ctx context.Context, refs []Ref) ([]bool, error) {
	ends, err := r.ends(ctx, refs)
	if err != nil {
		return nil, fmt.Errorf("session: read sessions: %w", err)
	}
	alive := make([]bool, len(refs))
	for i, end := range ends {
		alive[i] = end != 0
	}
	return alive, nil
}

// ends returns of each session 0 if it is over, -1 if it is connected, or else
// when its window ends, in ms of Redis's clock.
func (r *Registry) ends(ctx context.Context, refs []Ref) ([]int64, error) {
	calls := make([]*call, len(refs))
	for i, ref := range refs {
		calls[i] = newCall(aliveScript, r.keys.user(ref.User), ref.ID)
	}
	if err := r.run(ctx, calls...); err != nil {
		return nil, err
	}
	ends := make([]int64, len(refs))
	var failed error
	for i, c := range calls {
		answer, err := c.answer.Int64Slice()
		if err != nil || len(answer) != 1 {
			failed = errors.Join(failed, errAnswer, err)
			continue
		}
		ends[i] = answer[0]
	}
	return ends, failed
}
