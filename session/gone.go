package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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
			r.log.Warn("telling of sessions that are over failed, retrying", "error", err)
		}
		failing = err != nil
	}
}

// tellAll tells of all that are over by now. Those that fail come up again.
func (r *Registry) tellAll(ctx context.Context) (failed error) {
	for {
		n, err := r.tellBatch(ctx)
		failed = cmp.Or(err, failed)
		if n < goneBatch {
			return failed
		}
	}
}

// Untold is the error of a Config.Gone that could not deal with some of the
// sessions: why, by their ids.
type Untold map[string]error

func (u Untold) Error() string {
	for id, err := range u {
		return fmt.Sprintf("%d sessions could not be told of, %s among them: %v", len(u), id, err)
	}
	return "none"
}

// tellBatch takes some of the sessions whose time has come, finds out which are
// over, and tells of them. It returns how many it took. One that fails is looked
// at again by whoever takes it then, and holds up no other.
func (r *Registry) tellBatch(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, goneHold/2)
	defer cancel()
	take := newCall(goneTakeScript, r.keys.gone(), goneBatch, goneHold.Milliseconds(), random(8))
	if err := r.run(ctx, take); err != nil {
		return 0, fmt.Errorf("take sessions: %w", err)
	}
	f, err := take.fields(2)
	if err != nil {
		return 0, err
	}
	if err := r.noteAgain(ctx, f[0]); err != nil {
		return 0, fmt.Errorf("note sessions again: %w", err)
	}
	if len(f) == 2 {
		return 0, nil
	}
	ticket, f := f[1], f[2:]
	over, settled, failed := r.sort(ctx, r.parseGone(f))
	over, untold := r.tell(ctx, over)
	for _, g := range over {
		settled = append(settled, g.ID, 0)
	}
	if len(settled) > 0 {
		args := append([]any{ticket}, settled...)
		if err := r.run(ctx, newCall(goneDoneScript, r.keys.gone(), args...)); err != nil {
			return 0, fmt.Errorf("settle sessions: %w", err)
		}
	}
	return len(f) / 2, cmp.Or(failed, untold)
}

// parseGone parses ids and what is told of them, one after another. What is not ours
// is left alone: it comes up again, for whoever knows it.
func (r *Registry) parseGone(f []string) []Gone {
	var all []Gone
	for ; len(f) >= 2; f = f[2:] {
		var t told
		err := json.Unmarshal([]byte(f[1]), &t)
		if t.User == "" {
			r.foundStrange("told", "", f[0])
			continue
		}
		if err != nil { // of what is damaged the rest is told
			r.foundStrange("told", t.User, f[0])
		}
		all = append(all, Gone{f[0], t.User, t.Node, t.Reason, t.Channels})
	}
	return all
}

// sort returns the sessions that are over. Of the others, those that have been
// resumed need not be looked at again, and those whose window has been renewed
// at its end: settled has them as gone_done.lua wants it. Those that could not be
// read are in neither.
func (r *Registry) sort(ctx context.Context, taken []Gone) (over []Gone, settled []any, failed error) {
	refs := make([]Ref, len(taken))
	for i, g := range taken {
		refs[i] = Ref{User: g.User, ID: g.ID}
	}
	for i, e := range r.ends(ctx, refs) {
		g := taken[i]
		switch {
		case e.err != nil:
			failed = fmt.Errorf("read session: %w", e.err)
		case e.at == 0:
			over = append(over, g)
		case e.at < 0:
			settled = append(settled, g.ID, 0)
		default:
			settled = append(settled, g.ID, e.at)
		}
	}
	return over, settled, failed
}

// tell tells of sessions that are over, and returns those of which it has.
func (r *Registry) tell(ctx context.Context, over []Gone) (done []Gone, failed error) {
	if len(over) > 0 && r.cfg.Gone != nil {
		over, failed = r.tellHandler(ctx, over)
	}
	if !r.cfg.Events || len(over) == 0 {
		r.metrics.gone.Add(float64(len(over)))
		return over, failed
	}
	calls := make([]*call, len(over))
	for i, g := range over {
		calls[i] = r.disconnectedCall(g)
	}
	_ = r.run(ctx, calls...) // each call has its own error
	for i, c := range calls {
		if err := c.answer.Err(); err != nil {
			failed = fmt.Errorf("write event: %w", err)
			continue
		}
		done = append(done, over[i])
	}
	r.metrics.gone.Add(float64(len(done)))
	return done, failed
}

// tellHandler tells Config.Gone, and returns those that it has dealt with.
func (r *Registry) tellHandler(ctx context.Context, over []Gone) ([]Gone, error) {
	err := r.cfg.Gone(ctx, over)
	if err == nil {
		return over, nil
	}
	untold, ok := errors.AsType[Untold](err)
	if !ok {
		return nil, fmt.Errorf("tell: %w", err)
	}
	over = slices.DeleteFunc(over, func(g Gone) bool { return untold[g.ID] != nil })
	return over, fmt.Errorf("tell: %w", err)
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
// asks Redis.
func (r *Registry) Alive(ctx context.Context, refs []Ref) ([]bool, error) {
	alive := make([]bool, len(refs))
	for i, end := range r.ends(ctx, refs) {
		if end.err != nil {
			return nil, fmt.Errorf("session: read sessions: %w", end.err)
		}
		alive[i] = end.at != 0
	}
	return alive, nil
}

// end says of a session when it is over.
type end struct {
	at  int64 // 0 if it is, -1 if it is connected, or else ms of Redis's clock
	err error // why that is not known
}

// ends asks Redis when sessions are over.
func (r *Registry) ends(ctx context.Context, refs []Ref) []end {
	if len(refs) == 0 {
		return nil
	}
	calls := make([]*call, len(refs))
	for i, ref := range refs {
		channel := ""
		if ref.Channel != "" {
			channel = field(ref.Channel)
		}
		calls[i] = newCall(aliveScript, r.keys.user(ref.User), ref.ID, channel, ref.Generation)
	}
	_ = r.run(ctx, calls...) // each call has its own error
	ends := make([]end, len(refs))
	for i, c := range calls {
		ends[i].at, ends[i].err = c.answer.Int64()
	}
	return ends
}
