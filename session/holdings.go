package session

import (
	"hash/maphash"
	"iter"
)

// holdings are the sessions that are connected on this node, by id, in as many
// parts as a round of verification has steps: a step looks at one part. Guarded by
// registry.mu.
type holdings struct {
	seed  maphash.Seed
	parts [verifySteps]map[string]*Session
}

func newHoldings() holdings {
	h := holdings{seed: maphash.MakeSeed()}
	for i := range h.parts {
		h.parts[i] = make(map[string]*Session)
	}
	return h
}

func (h *holdings) part(id string) map[string]*Session {
	return h.parts[maphash.String(h.seed, id)%verifySteps]
}

// get returns the session with an id, or nil.
func (h *holdings) get(id string) *Session { return h.part(id)[id] }

// put adds a session, in the place of another one with its id.
func (h *holdings) put(s *Session) { h.part(s.ID)[s.ID] = s }

// remove removes a session, unless another one has taken its place.
func (h *holdings) remove(s *Session) {
	if part := h.part(s.ID); part[s.ID] == s {
		delete(part, s.ID)
	}
}

func (h *holdings) count() (n int) {
	for _, part := range h.parts {
		n += len(part)
	}
	return n
}

func (h *holdings) all() iter.Seq[*Session] {
	return func(yield func(*Session) bool) {
		for _, part := range h.parts {
			for _, s := range part {
				if !yield(s) {
					return
				}
			}
		}
	}
}
