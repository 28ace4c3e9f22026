package gateway

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"wssgateway/gateway/transport"
	"wssgateway/gateway/wire"
)

// accept is the handler of /ws. It lends its request to a worker until the
// connection is at rest; then nothing of HTTP is kept.
func (g *Gateway) accept(gc *gin.Context) {
	switch {
	case g.refusing():
		g.refuse(gc, causeDrain, "node is shutting down; connect to another")
		return
	case g.transport.Full():
		if n, due := g.crowded.add(time.Now(), crowdedEvery); due {
			g.log.Warn("no memory for more clients, handshakes refused",
				"handshakes", n, "used_bytes", g.budget.Used(), "limit_bytes", g.budget.Limit())
		}
		g.refuse(gc, transport.Overloaded, "node has no memory for more clients; try again later")
		return
	}
	h := &handshake{gw: g, gc: gc, done: make(chan any, 1)}
	g.transport.Work(h)
	if cause := <-h.done; cause != nil {
		panic(cause) // as it would have been here
	}
}

// crowdedEvery is how often it is logged at most that there is no memory for more
// clients: they come again and again.
const crowdedEvery = time.Minute

// refuse answers a handshake that another node, or this one later, may accept.
func (g *Gateway) refuse(gc *gin.Context, why cause, detail string) {
	g.metrics.refused[why].Inc()
	gc.Header("Retry-After", strconv.Itoa(jitteredRetry()))
	problem(gc, http.StatusServiceUnavailable, wire.Unavailable, detail)
}

// handshake is a handshake on its way.
type handshake struct {
	gw   *Gateway
	gc   *gin.Context
	done chan any // what Do has panicked with, or nil
}

// Do implements transport.Task.
func (h *handshake) Do() {
	defer func() { h.done <- recover() }()
	g, gc := h.gw, h.gc
	hello, refused := g.greet(gc.Request)
	if refused != nil {
		if refused.status == http.StatusUnauthorized {
			gc.Header("WWW-Authenticate", "Bearer")
		}
		problem(gc, refused.status, refused.code, refused.detail)
		return
	}
	c := &conn{gw: g, hello: hello, ip: gc.ClientIP(), shard: g.hub.shardFor()}
	if err := g.transport.Accept(gc.Writer, gc.Request, &c.socket, c); err != nil {
		g.log.Debug("handshake refused", "ip", c.ip, "error", err)
		return // it was answered
	}
	c.deflates = c.socket.Compresses()
	if !g.conns.add(c) {
		c.socket.Abort() // the node has stopped since it was asked above
		return
	}
	c.start()
}

// refusal is why a handshake is refused.
type refusal struct {
	status int
	code   wire.Code
	detail string
}

// greet reads what a handshake says besides what makes it a WebSocket: the token
// and, in the query string, perhaps the whole connect request.
func (g *Gateway) greet(r *http.Request) (*hello, *refusal) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, wire.BadRequest, "query string is malformed"}
	}
	token, given, err := handshakeToken(r.Header, query)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, wire.BadRequest, err.Error()}
	}
	request, err := queryConnect(query)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, wire.BadRequest, err.Error()}
	}
	h := &hello{connect: request}
	switch {
	case given:
		if h.grant, err = g.verifier.verify(token); err != nil {
			return nil, &refusal{http.StatusUnauthorized, wire.Unauthorized, err.Error()}
		}
	case request != nil:
		return nil, &refusal{http.StatusUnauthorized, wire.Unauthorized, "token is missing"}
	}
	return h, nil
}

// handshakeToken returns the token of a handshake: from the Authorization
// header, a subprotocol entry or the query string, in this order. It may be
// given and no token at all.
func handshakeToken(h http.Header, query url.Values) (token string, given bool, err error) {
	fromProtocol, inProtocol, err := protocolToken(h)
	if err != nil {
		return "", false, err
	}
	if header := h.Get("Authorization"); header != "" {
		return bearer(header), true, nil
	}
	if inProtocol {
		return fromProtocol, true, nil
	}
	token = query.Get("access_token")
	return token, token != "", nil
}

// bearer returns the token of an Authorization header, or "" if it has none.
func bearer(header string) string {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func protocolToken(h http.Header) (token string, given bool, err error) {
	offersUs := false
	for _, header := range h.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(header, ",") {
			p = strings.TrimSpace(p)
			if t, ok := strings.CutPrefix(p, wire.TokenSubprotocol); ok {
				token, given = t, true
			}
			offersUs = offersUs || strings.EqualFold(p, wire.Subprotocol)
		}
	}
	if given && !offersUs {
		return "", false, errors.New("offer " + wire.Subprotocol + " besides the token")
	}
	return token, given, nil
}

// queryConnect returns the connect request in the query string, or nil if none
// of its parameters is there.
func queryConnect(q url.Values) (*wire.Request, error) {
	if !q.Has("session") && !q.Has("device") && !q.Has("channel") && !q.Has("connect") {
		return nil, nil
	}
	request := &wire.Request{
		Type: "connect", Session: q.Get("session"), Device: q.Get("device"),
		Channels: make(map[string]string),
	}
	if len(request.Device) > wire.MaxDevice || !utf8.ValidString(request.Device) {
		return nil, errors.New("device is too long, or not UTF-8")
	}
	for _, name := range q["channel"] {
		since := ""
		if i := strings.LastIndexByte(name, '@'); i >= 0 {
			if p, ok := parsePosition(name[i+1:]); ok && p.given {
				name, since = name[:i], name[i+1:]
			}
		}
		request.Channels[name] = since
	}
	return request, nil
}
