// Package wire is the protocol gateway.v1 on the wire: the requests of clients
// decoded, the frames of the server built. It knows nothing of connections, and
// the gateway and its clients share it. docs/protocol.md is its specification.
package wire

// Subprotocol is the name that clients and servers agree on in the handshake.
const Subprotocol = "gateway.v1"

// TokenSubprotocol is the prefix of the subprotocol entry that carries a token
// (browsers cannot set headers).
const TokenSubprotocol = "bearer."

// Broadcast is the channel that every session is subscribed to.
const Broadcast = "broadcast"

// Inbox returns the channel of what is sent to a user.
func Inbox(user string) string { return "user:" + user }

// Code says what went wrong, in error frames and in problem documents.
type Code string

// All codes.
const (
	BadRequest    Code = "bad_request"
	Unauthorized  Code = "unauthorized"
	Forbidden     Code = "forbidden"
	NotFound      Code = "not_found"
	TooLarge      Code = "too_large"
	RateLimited   Code = "rate_limited"
	LimitExceeded Code = "limit_exceeded"
	Timeout       Code = "timeout"
	Unavailable   Code = "unavailable"
	Internal      Code = "internal"
)

// CloseCode is the status code of a WebSocket close frame (RFC 6455, section 7.4).
type CloseCode uint16

// CloseReload is what a script can close with for a page that is left: browsers
// let it send no 1001.
const CloseReload CloseCode = 3001

// CloseNoStatus stands for a close frame without a code. It is never sent.
const CloseNoStatus CloseCode = 1005

// The close codes a server of this protocol sends.
const (
	CloseNormal       CloseCode = 1000
	CloseGoingAway    CloseCode = 1001
	CloseProtocol     CloseCode = 1002
	CloseInvalidData  CloseCode = 1007
	ClosePolicy       CloseCode = 1008
	CloseTooBig       CloseCode = 1009
	CloseInternal     CloseCode = 1011
	CloseRestart      CloseCode = 1012
	CloseOverloaded   CloseCode = 1013
	CloseToken        CloseCode = 4001
	CloseMoved        CloseCode = 4002
	CloseDisconnected CloseCode = 4003
	CloseSlow         CloseCode = 4008
	CloseTooMany      CloseCode = 4029
)

// The bounds of section 3 of the protocol.
const (
	MaxChannel  = 255 // bytes of a channel's name
	MaxEvent    = 128 // bytes of an event
	MaxKey      = 128 // bytes of an idempotency key
	MaxRef      = 64  // bytes of a ref that is a string
	MaxDevice   = 64  // bytes of a device
	MaxRequests = 100 // requests of one array
	MaxRefInt   = 1 << 53
	MaxHistory  = 1000 // messages of one history reply
	MaxDepth    = 64   // of JSON: objects and arrays in each other, the request itself counted
)
