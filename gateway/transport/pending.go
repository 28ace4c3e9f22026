package transport

// Pending reports whether more has come than the message that is being handled. Only
// Handler.Message may call it.
func (c *Conn) Pending() bool {
	return len(c.buffered()) > 0 || c.raw != nil && peekNow(c.raw)
}
