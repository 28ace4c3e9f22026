package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// goneEvery is how often a node looks whether a window has run out.
	goneEvery = time.Second
	// goneBatch is how many sessions a node takes at a time.
	goneBatch = 256
	// goneHold is how long they are its alone: what it has not settled by then,
	// another node takes.
	goneHold = 10 * time.Second
	// goneTimeout bounds what is done with a batch.
	goneTimeout = goneHold / 2
	// handlerTimeout is how much of that Config.Gone has: in the rest the sessions that
	// it has dealt with are settled, though it has waited for others.
	handlerTimeout = goneTimeout * 3 / 5
	// gonePatience is how long a batch is waited for before the next one is taken. It
	// needs milliseconds, and one that waits for a server that hangs needs seconds: of
	// those there are goneTimeout/gonePatience, 20, at the most.
	gonePatience = 250 * time.Millisecond
)

// teller tells of sessions that are over.
type teller struct {
	r       *Registry
	batches sync.WaitGroup // under way
	warning warning
}

// tellGone looks for sessions that are over and tells of each once, until ctx is
// done. Every node does, and whoever takes one has it to itself.
func (r *Registry) tellGone(ctx context.Context) {
	t := &teller{r: r}
	defer t.batches.Wait()
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
		t.tellAll(ctx)
	}
}

// tellAll tells of all that are over by now. Those that fail come up again.
func (t *teller) tellAll(ctx context.Context) {
	for {
		batch, err := t.r.takeGone(ctx)
		if batch.size == 0 {
			t.warn(ctx, err)
			return
		}
		done := make(chan struct{})
		t.batches.Go(func() {
			t.warn(ctx, t.r.tellBatch(ctx, batch))
			close(done)
		})
		patience := time.NewTimer(gonePatience)
		select {
		case <-done:
		case <-patience.C:
		}
		patience.Stop()
		if batch.size < goneBatch {
			return
		}
	}
}

func (t *teller) warn(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && t.warning.due() {
		t.r.log.Warn("telling of sessions that are over failed, retrying", "error", err)
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

// taken are sessions whose time has come.
type taken struct {
	ticket   string // whose they are, for gone_done.lua
	size     int    // how many were taken, those that are not ours included
	sessions []Gone
}

// takeGone takes some of the sessions whose time has come.
func (r *Registry) takeGone(ctx context.Context) (taken, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	take := newCall(goneTakeScript, r.keys.gone(), goneBatch, goneHold.Milliseconds(), random(8))
	if err := r.run(ctx, take); err != nil {
		return taken{}, fmt.Errorf("take sessions: %w", err)
	}
	f, err := take.fields(2)
	if err != nil {
		return taken{}, err
	}
	if err := r.noteAgain(ctx, f[0]); err != nil {
		return taken{}, fmt.Errorf("note sessions again: %w", err)
	}
	if len(f) == 2 {
		return taken{}, nil
	}
	return taken{ticket: f[1], size: len(f[2:]) / 2, sessions: r.parseGone(f[2:])}, nil
}

// tellBatch finds out which of the sessions taken are over, and tells of them: those of
// each server by themselves. One that fails is looked at again by whoever takes it
// then, and holds up no other.
func (r *Registry) tellBatch(ctx context.Context, batch taken) (failed error) {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	servers := make(map[string][]Gone)
	for _, g := range batch.sessions {
		server := r.serverOfUser(ctx, g.User)
		servers[server] = append(servers[server], g)
	}
	errs := make(chan error, len(servers))
	for _, sessions := range servers {
		go func() { errs <- r.tellServer(ctx, batch.ticket, sessions) }()
	}
	for range servers {
		failed = cmp.Or(failed, <-errs)
	}
	return failed
}

// tellServer is tellBatch for the sessions of one server.
func (r *Registry) tellServer(ctx context.Context, ticket string, sessions []Gone) error {
	over, settled, failed := r.sort(ctx, sessions)
	over, untold := r.tell(ctx, over)
	for _, g := range over {
		settled = append(settled, g.ID, 0)
	}
	if len(settled) > 0 {
		args := append([]any{ticket}, settled...)
		if err := r.run(ctx, newCall(goneDoneScript, r.keys.gone(), args...)); err != nil {
			return fmt.Errorf("settle sessions: %w", err)
		}
	}
	return cmp.Or(failed, untold)
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
	for i, e := range r.ends(ctx, refs, goneTimeout) {
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
	ctx, cancel := context.WithTimeout(ctx, handlerTimeout)
	defer cancel()
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
