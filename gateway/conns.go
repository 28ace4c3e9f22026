package gateway

import "sync"

// conns are the connections of the node.
type conns struct {
	mu      sync.Mutex // guards what follows
	all     map[*conn]struct{}
	stopped bool
	changed *sync.Cond
}

func newConns() *conns {
	s := &conns{all: make(map[*conn]struct{})}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// add reports false if the node takes no more connections.
func (s *conns) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.all[c] = struct{}{}
	return true
}

func (s *conns) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
	s.changed.Broadcast()
}

func (s *conns) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// snapshot returns the connections, in no order.
func (s *conns) snapshot() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.all))
	for c := range s.all {
		all = append(all, c)
	}
	return all
}

// stop has add refuse from now on.
func (s *conns) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.changed.Broadcast()
}

// awaitNone waits until there are none any more.
func (s *conns) awaitNone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.all) > 0 {
		s.changed.Wait()
	}
}
