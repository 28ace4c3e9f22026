package transport

import "wssgateway/gateway/wire"

// Cause is why a connection ended: each has one. It gives the close code that the
// client sees, the label of the metric and the word in the log. Causes are compared
// by their address; owners add their own.
type Cause struct {
	Label  string
	Code   wire.CloseCode // 0: there is nobody to send a close frame to
	Reason string
}

// What a connection may end of by itself.
var (
	Closed      = &Cause{Label: "client"}      // the client closed with 1000
	Away        = &Cause{Label: "client_away"} // the client closed with 1001 or 3001: a page that reloads
	Lost        = &Cause{Label: "lost"}        // the connection broke, or the client closed with another code
	Silent      = &Cause{"silent", wire.CloseGoingAway, "no sign of life"}
	Slow        = &Cause{"slow", wire.CloseSlow, "too slow: reconnect with your positions"}
	Overloaded  = &Cause{"overloaded", wire.CloseOverloaded, "node is out of memory for slow clients, back off"}
	Violation   = &Cause{"protocol", wire.CloseProtocol, "protocol error"} // of RFC 6455 or RFC 7692
	InvalidText = &Cause{"invalid_text", wire.CloseInvalidData, "text or close reason is not UTF-8"}
	TooBig      = &Cause{"too_big", wire.CloseTooBig, "message is too big"}
	Stalled     = &Cause{"stalled", wire.ClosePolicy, "a message has begun and does not end"}
	Flood       = &Cause{"flood", wire.ClosePolicy, "too many control frames or fragments"}
	Panicked    = &Cause{"internal", wire.CloseInternal, "internal error"}
)

// Causes returns the causes above.
func Causes() []*Cause {
	return []*Cause{Closed, Away, Lost, Silent, Slow, Overloaded, Violation, InvalidText, TooBig, Stalled, Flood, Panicked}
}

// causeOfClose says what a client means by closing with a code.
func causeOfClose(code wire.CloseCode) *Cause {
	switch code {
	case wire.CloseNormal:
		return Closed
	case wire.CloseGoingAway, wire.CloseReload:
		return Away
	}
	return Lost
}
