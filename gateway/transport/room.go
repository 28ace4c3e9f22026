package transport

// SendIfRoom is Send for what can be had again, and must not crowd out what comes by
// itself: if it would have more than half of the outbox in use, it reports false, and
// nothing has happened. An empty outbox has room for anything.
func (c *Conn) SendIfRoom(frames []byte) bool {
	c.mu.Lock()
	switch {
	case c.shutting || c.refused:
	case c.flushing && c.memory+memoryOf(frames) > c.transport.cfg.Outbox/2:
		c.mu.Unlock()
		return false
	default:
		c.write(frames)
	}
	queued := c.flushing
	c.mu.Unlock()
	if queued {
		c.transport.cfg.Budget.shed()
	}
	return true
}
