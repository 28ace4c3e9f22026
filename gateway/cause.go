package gateway

import "wssgateway/gateway/wire"

// cause is why a connection ended: each has one. It gives the close code that
// the client sees, the label of the metric and the word in the log.
type cause string

// All causes.
const (
	causeClient       cause = "client"        // the client closed
	causeAway         cause = "client_away"   // the client closed with 1001: a page that reloads
	causeLost         cause = "lost"          // the connection broke
	causeSilent       cause = "silent"        // nothing came, not even a pong
	causeNoConnect    cause = "no_connect"    // no connect frame in time
	causeBadToken     cause = "bad_token"     // no token, or a bad one
	causeExpired      cause = "token_expired" // and no newer one came
	causeMoved        cause = "moved"         // the session has another connection now
	causeSlow         cause = "slow"          // the outbox was full
	causeConnections  cause = "connections"   // the user has too many
	causeRate         cause = "rate"          // went on after being told to slow down
	causeBadFrames    cause = "bad_frames"    // too many in a row
	causeProtocol     cause = "protocol"      // not WebSocket (RFC 6455)
	causeInvalidText  cause = "invalid_text"  // text that is not UTF-8
	causeTooBig       cause = "too_big"       // a message over the limit
	causeUnavailable  cause = "unavailable"   // Redis could not be asked when it connected
	causeDrain        cause = "drain"         // the node goes, and the client did not move
	causeRebalance    cause = "rebalance"     // other nodes have room, and the client did not move
	causeDisconnected cause = "disconnected"  // the backend ended the session
)

// ending is what a cause means for the client.
type ending struct {
	code   wire.CloseCode
	reason string
}

// endings has the causes that the server closes for. The client's own endings,
// and a connection that is gone, get no close frame.
var endings = map[cause]ending{
	causeNoConnect:    {wire.CloseToken, "no connect frame in time"},
	causeBadToken:     {wire.CloseToken, "no token or a bad one"},
	causeExpired:      {wire.CloseToken, "token has expired"},
	causeMoved:        {wire.CloseMoved, "session moved to another connection"},
	causeSlow:         {wire.CloseSlow, "too slow: reconnect with your positions"},
	causeConnections:  {wire.CloseTooMany, "too many connections"},
	causeRate:         {wire.CloseTooMany, "too many requests"},
	causeBadFrames:    {wire.ClosePolicy, "too many bad frames"},
	causeProtocol:     {wire.CloseProtocol, "protocol error"},
	causeInvalidText:  {wire.CloseInvalidData, "text is not UTF-8"},
	causeTooBig:       {wire.CloseTooBig, "message is too big"},
	causeUnavailable:  {wire.CloseOverloaded, "try again later"},
	causeDrain:        {wire.CloseRestart, "node is going, reconnect"},
	causeRebalance:    {wire.CloseRestart, "there is room elsewhere, reconnect"},
	causeDisconnected: {wire.CloseDisconnected, "disconnected by the backend"},
	causeSilent:       {wire.CloseGoingAway, "no sign of life"},
}

// causes is the closed set of labels.
func causes() []cause {
	all := []cause{causeClient, causeAway, causeLost}
	for c := range endings {
		all = append(all, c)
	}
	return all
}
