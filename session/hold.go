package session

// hold makes s a session of this node. It returns the older session of that id
// that this node held, which is lost with it, or s itself if a younger one is
// already here.
func (r *Registry) hold(s *Session) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.held.get(s.ID)
	if before != nil && before.Generation > s.Generation {
		s.phase = lost
		r.dismiss(s)
		return s
	}
	if before != nil {
		before.phase = lost
		r.dismiss(before)
	}
	r.held.put(s)
	// A resumed session may have moved on before it got here, and who took it
	// cannot have told us: the write finds out.
	if s.Generation > 1 || s.lease != r.lease.id || r.cfg.Events {
		r.touch(s)
	}
	return before
}

// Evict says that a session was claimed by another connection, which generation
// of it at the least is void, as Claimed.Previous tells. If this node holds that
// one, it forgets it and calls its Holder.SessionLost.
func (r *Registry) Evict(sessionID string, generation uint64) {
	r.mu.Lock()
	s := r.held.get(sessionID)
	r.mu.Unlock()
	if s != nil && s.Generation <= generation {
		r.lose(s, LossMoved)
	}
}

// Held returns who holds a generation of a session on this node, or nil.
func (r *Registry) Held(sessionID string, generation uint64) Holder {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.held.get(sessionID); s != nil && s.Generation == generation {
		return s.holder
	}
	return nil
}

// lose forgets a session that is no longer its connection's and tells its holder.
func (r *Registry) lose(s *Session, why Loss) {
	r.mu.Lock()
	was := s.phase
	if was == connected {
		s.phase = lost
	}
	r.held.remove(s)
	r.dismiss(s)
	r.mu.Unlock()
	if was == connected {
		s.holder.SessionLost(why)
	}
}

// touch lets s be written. r.mu is held.
func (r *Registry) touch(s *Session) {
	s.version++
	r.dirty[s] = struct{}{}
	r.queue(s)
}

// queue lets writeChanges look at s. r.mu is held.
func (r *Registry) queue(s *Session) {
	if !s.touched {
		s.touched = true
		r.touched = append(r.touched, s)
	}
	r.wakeWriter()
}

// dismiss drops what there is to write of s, which is no longer ours to write, and has
// it compared with Redis for a while.
// r.mu is held.
func (r *Registry) dismiss(s *Session) {
	delete(r.dirty, s)
	r.keepDeparted(s)
	if s.lease == r.lease.id {
		r.discard(entry(s.claim, s.ID, s.User))
	}
}

// discard lets an entry be taken out of the index of the lease. r.mu is held.
func (r *Registry) discard(entry string) {
	r.obsolete = append(r.obsolete, entry)
	r.wakeWriter()
}

// wakeWriter tells writeChanges that there is something to do.
func (r *Registry) wakeWriter() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
