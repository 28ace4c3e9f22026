package broker

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// recorder is a Sink that remembers what it got.
type recorder struct {
	mu      sync.Mutex
	events  []event       // guarded by mu
	changed chan struct{} // guarded by mu; closed at the next event
}

// event is a message, or a reset if it says so.
type event struct {
	Message
	reset bool // ID is where the channel goes on
}

func newRecorder() *recorder { return &recorder{changed: make(chan struct{})} }

func (r *recorder) Deliver(m Message) { r.add(event{Message: m}) }
func (r *recorder) Reset(last ID)     { r.add(event{Message: Message{ID: last}, reset: true}) }

func (r *recorder) add(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	close(r.changed)
	r.changed = make(chan struct{})
}

// wait returns all events once they fulfil a condition, which must be cheap.
func (r *recorder) wait(t testing.TB, what string, condition func([]event) bool) []event {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		events, changed := r.events, r.changed
		r.mu.Unlock()
		if condition(events) {
			return slices.Clone(events)
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("not within %v: %s; got %d events", patience, what, len(events))
		}
	}
}

// waitFor returns all events once a message with this id, or a later one, or a
// reset to it was the last.
func (r *recorder) waitFor(t testing.TB, id ID) []event {
	t.Helper()
	return r.wait(t, "message "+id.String(), func(events []event) bool {
		return len(events) > 0 && events[len(events)-1].ID.Compare(id) >= 0
	})
}

// waitCount returns all events once there are count.
func (r *recorder) waitCount(t testing.TB, count int) []event {
	t.Helper()
	return r.wait(t, "enough events", func(events []event) bool { return len(events) >= count })
}

// all returns the events so far.
func (r *recorder) all() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// payloads returns what the messages carried.
func payloads(events []event) []string {
	var list []string
	for _, e := range events {
		if !e.reset {
			list = append(list, e.Payload)
		}
	}
	return list
}

// ids returns the ids of the messages.
func ids(events []event) []ID {
	var list []ID
	for _, e := range events {
		if !e.reset {
			list = append(list, e.ID)
		}
	}
	return list
}

func resets(events []event) int {
	n := 0
	for _, e := range events {
		if e.reset {
			n++
		}
	}
	return n
}

// checkStory checks that what a subscriber got is a story without a silent gap:
// every message follows on the one before it or on a reset, ids ascend between
// resets, and each acknowledged id was delivered once, or lies in a hole that a
// reset told about.
func checkStory(t testing.TB, events []event, acknowledged []ID) {
	t.Helper()
	type hole struct{ after, until ID }
	var holes []hole
	seen := make(map[ID]int)
	for i, e := range events {
		switch {
		case e.reset && i > 0:
			holes = append(holes, hole{events[i-1].ID, e.ID})
		case e.reset:
			holes = append(holes, hole{ID{}, e.ID})
		default:
			if i > 0 && e.Prev != events[i-1].ID {
				t.Errorf("%s comes after %s, but should after %s", e.ID, events[i-1].ID, e.Prev)
			}
			if e.ID.Compare(e.Prev) <= 0 {
				t.Errorf("%s does not ascend from %s", e.ID, e.Prev)
			}
			seen[e.ID]++
		}
	}
	for _, id := range acknowledged {
		told := slices.ContainsFunc(holes, func(h hole) bool {
			return id.Compare(h.after) > 0 && id.Compare(h.until) <= 0
		})
		if n := seen[id]; n > 1 || n == 0 && !told {
			t.Errorf("acknowledged %s was delivered %d times", id, n)
		}
	}
}
