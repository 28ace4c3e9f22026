package gateway

import (
	"wssgateway/gateway/transport"
	"wssgateway/gateway/wire"
)

// cause is why a connection ended: one of the transport's, or of these.
type cause = *transport.Cause

var (
	causeNoConnect    = &transport.Cause{Label: "no_connect", Code: wire.CloseToken, Reason: "no connect frame in time"}
	causeBadToken     = &transport.Cause{Label: "bad_token", Code: wire.CloseToken, Reason: "missing or invalid token"}
	causeExpired      = &transport.Cause{Label: "token_expired", Code: wire.CloseToken, Reason: "token has expired"}
	causeMoved        = &transport.Cause{Label: "moved", Code: wire.CloseMoved, Reason: "session moved to another connection"}
	causeConnections  = &transport.Cause{Label: "connections", Code: wire.CloseTooMany, Reason: "too many connections"}
	causeRate         = &transport.Cause{Label: "rate", Code: wire.CloseTooMany, Reason: "too many requests"}
	causeBadFrames    = &transport.Cause{Label: "bad_frames", Code: wire.ClosePolicy, Reason: "too many bad frames"}
	causeUnavailable  = &transport.Cause{Label: "unavailable", Code: wire.CloseOverloaded, Reason: "try again later"}
	causeDrain        = &transport.Cause{Label: "drain", Code: wire.CloseRestart, Reason: "node is going, reconnect"}
	causeRebalance    = &transport.Cause{Label: "rebalance", Code: wire.CloseRestart, Reason: "there is room elsewhere, reconnect"}
	causeDisconnected = &transport.Cause{Label: "disconnected", Code: wire.CloseDisconnected, Reason: "disconnected by the backend"}
)

// causes is the closed set of labels.
func causes() []cause {
	return append(transport.Causes(), causeNoConnect, causeBadToken, causeExpired, causeMoved, causeConnections,
		causeRate, causeBadFrames, causeUnavailable, causeDrain, causeRebalance, causeDisconnected)
}
