package gateway

import "wssgateway/session"

// losses are the causes for which a connection ends that has lost its session.
var losses = map[session.Loss]cause{
	session.LossMoved:        causeMoved,
	session.LossDisconnected: causeDisconnected,
	session.LossForgotten:    causeUnavailable,
}

// SessionLost implements session.Holder.
func (c *conn) SessionLost(why session.Loss) {
	if c.grant.Load() != nil { // else it was lost before it was taken over
		c.gw.presence.lost(c)
	}
	c.fail(losses[why])
}

// SessionRestored implements session.Holder.
func (c *conn) SessionRestored() {
	if c.grant.Load() != nil {
		c.gw.presence.restored(c)
	}
}
