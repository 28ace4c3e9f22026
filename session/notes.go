package session

import (
	"context"
	"maps"
	"slices"
	"time"
)

// notes are those of sessions that were left which this node has written, by session:
// a Redis that has lost them gets them again. Each is kept until it is due. Guarded by
// registry.mu.
type notes map[string]note

// note is what gone_add.lua was given.
type note struct {
	due  time.Time
	told any // JSON
}

// keep keeps a note that Redis has taken.
func (n notes) keep(add *call) {
	id, in := add.args[0].(string), add.args[1].(int64)
	n[id] = note{time.Now().Add(time.Duration(in) * time.Millisecond), add.args[2]}
}

// forget forgets those that are due.
func (n notes) forget() {
	now := time.Now()
	maps.DeleteFunc(n, func(_ string, note note) bool { return now.After(note.due) })
}

// again returns the calls that write the notes which are not due yet.
func (n notes) again(keys []string) (calls []*call) {
	for id, note := range n {
		if in := time.Until(note.due); in > 0 {
			calls = append(calls, newCall(goneAddScript, keys, id, in.Milliseconds(), note.told))
		}
	}
	return calls
}

// keepNotes keeps notes that Redis has taken.
func (r *Registry) keepNotes(added []*call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, add := range added {
		r.notes.keep(add)
	}
}

// noteAgain writes the notes of this node again if the epoch of Redis's is another
// than before.
func (r *Registry) noteAgain(ctx context.Context, epoch string) error {
	r.mu.Lock()
	before := r.notesEpoch
	var lost []*call
	if before != "" && before != epoch {
		lost = r.notes.again(r.keys.gone())
	}
	r.mu.Unlock()
	for batch := range slices.Chunk(lost, batchSize) {
		if err := r.run(ctx, batch...); err != nil {
			return err // all again the next time
		}
	}
	if len(lost) > 0 {
		r.log.Warn("redis had lost when sessions are over, written again", "sessions", len(lost))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notesEpoch = epoch
	return nil
}
