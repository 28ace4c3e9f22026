package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
)

// Session is a session as one connection of this node holds it. Its methods
// may be called from several goroutines and return at once: what they change is
// written to Redis soon, and repeated until it is. Once the session has moved
// to another connection or is over, they do nothing.
type Session struct {
	// Static after the claim.
	ID          string
	User        string
	Device      string
	Client      string
	IP          string
	Generation  uint64    // grows each time the session moves
	ConnectedAt time.Time // of this connection, by Redis's clock
	registry    *Registry
	holder      Holder
	claim       string

	// Guarded by registry.mu.
	phase    phase
	version  uint32        // counts the changes
	written  uint32        // the version that Redis has; 0: none
	writing  bool          // by writeBatch, one at a time: a session's writes keep their order
	touched  bool          // it is in registry.touched
	lease    string        // the lease whose index has the session; "": none
	channels string        // encoded
	given    string        // encoded
	leftAt   time.Time     // when it was left, and
	window   time.Duration // how long it can be resumed from then
	reason   string        // why it was left
	told     bool          // the event that it is connected was written
	since    int64         // ms of Redis's clock: who found it to be over, did so before
	// doubtful: if Redis does not have the session, that need not be a loss. It is
	// not written back then.
	doubtful bool
}

// phase says what has become of a session on this node.
type phase uint8

const (
	connected phase = iota
	left            // by its connection
	lost            // to another connection
	abandoned       // its claim failed, and may yet be done by leftAt
)

// idPrefix lets a session's id be recognized in a log.
const idPrefix = "s_"

func newID() string { return idPrefix + random(16) }

// validID reports whether s has the form of a session's id.
func validID(s string) bool {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(s, idPrefix))
	return err == nil && len(b) == 16 && len(s) == len(idPrefix)+22
}

// random returns n random bytes as URL-safe text.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

// entry names a claim of a session in the index of a lease.
func entry(claim, id, user string) string { return claim + " " + id + " " + user }

// Channels returns the channels as last set, for a resumed session those that
// the connection before had.
func (s *Session) Channels() []string {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return unlist(s.channels)
}

// Given returns the channels that the session was given, as last set; they
// survive a move to another node.
func (s *Session) Given() []string {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return unlist(s.given)
}

// Connected reports whether the session is still this connection's.
func (s *Session) Connected() bool {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return s.phase == connected
}

// AwaitWritten waits until Redis has the session as it is, or until ctx is done.
func (s *Session) AwaitWritten(ctx context.Context) error {
	r := s.registry
	for {
		r.mu.Lock()
		_, dirty := r.dirty[s]
		has := s.written == s.version // if dirty, only the index lacks it
		flushed := r.flushed
		r.mu.Unlock()
		if !dirty || has {
			return nil
		}
		select {
		case <-flushed:
		case <-ctx.Done():
			return fmt.Errorf("session: wait for a write: %w", ctx.Err())
		}
	}
}

// SetChannels records all channels of the session.
func (s *Session) SetChannels(channels []string) { s.set(&s.channels, channels) }

// SetGiven records those channels that its backend gave the session, which its
// client does not list when it comes back.
func (s *Session) SetGiven(channels []string) { s.set(&s.given, channels) }

func (s *Session) set(what *string, channels []string) {
	encoded := list(channels)
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if s.phase != connected || *what == encoded {
		return
	}
	*what = encoded
	s.registry.touch(s)
}

// End ends the session: nobody can resume it. The reason is for whoever is told
// of it (Gone, events).
func (s *Session) End(reason string) { s.Leave(0, reason) }

// Leave says that the connection is over. The session can be resumed for
// window, which counts from now however late Redis is told.
func (s *Session) Leave(window time.Duration, reason string) {
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case s.phase == connected:
		s.phase, s.leftAt, s.window, s.reason = left, time.Now(), window, reason
	case s.phase == left && window == 0: // End after Leave
		s.window, s.reason = 0, reason
	default:
		return
	}
	r.held.remove(s)
	r.touch(s)
}

// remaining returns how much of its window is left, in ms as write.lua wants it.
func (s *Session) remaining() int64 {
	if s.phase == connected {
		return -1
	}
	return max(s.window-time.Since(s.leftAt), 0).Milliseconds()
}
