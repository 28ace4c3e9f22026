package gateway

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/coder/websocket"
	"github.com/gin-gonic/gin"

	"wssgateway/gateway/wire"
)

// accept is the handler of /ws. When it returns, the connection lives on its
// own and nothing of HTTP is kept.
func (g *Gateway) accept(gc *gin.Context) {
	if g.refusing() {
		gc.Header("Retry-After", strconv.Itoa(jitteredRetry()))
		problem(gc, http.StatusServiceUnavailable, wire.Unavailable, "this node is going, connect to another one")
		return
	}
	hello, refused := g.greet(gc.Request)
	if refused != nil {
		problem(gc, refused.status, refused.code, refused.detail)
		return
	}
	c := &conn{gw: g, hello: hello, ip: gc.ClientIP(), shard: g.hub.shardFor()}
	c.socket.limit = int(g.cfg.Limits.Outbox)
	c.socket.owner = c
	c.socket.seen = &g.wheel.now
	ws, err := websocket.Accept(&upgrade{gc.Writer, &c.socket}, gc.Request, &websocket.AcceptOptions{
		Subprotocols:   []string{wire.Subprotocol},
		OriginPatterns: g.cfg.Origins,
	})
	if err != nil {
		g.log.Debug("handshake refused", "ip", c.ip, "error", err)
		return // Accept has answered
	}
	ws.SetReadLimit(int64(g.cfg.Limits.FrameSize))
	c.ws = ws
	if !g.conns.add(c) {
		_ = ws.CloseNow() // the node has stopped since it was asked above
		return
	}
	go c.start()
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
	token, err := handshakeToken(r)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, wire.BadRequest, err.Error()}
	}
	request, err := queryConnect(r)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, wire.BadRequest, err.Error()}
	}
	h := &hello{connect: request}
	switch {
	case token != "":
		if h.grant, err = g.verifier.verify(token); err != nil {
			return nil, &refusal{http.StatusUnauthorized, wire.Unauthorized, err.Error()}
		}
	case request != nil:
		return nil, &refusal{http.StatusUnauthorized, wire.Unauthorized, "token is missing"}
	}
	return h, nil
}

// handshakeToken returns the token of a handshake: from the Authorization
// header, a subprotocol entry or the query string, in this order; or "".
func handshakeToken(r *http.Request) (string, error) {
	fromProtocol, err := protocolToken(r)
	if err != nil {
		return "", err
	}
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, ok := strings.Cut(header, " ")
		if !ok || !strings.EqualFold(scheme, "Bearer") {
			return "", errors.New("Authorization must be a Bearer token")
		}
		return strings.TrimSpace(token), nil
	}
	if fromProtocol != "" {
		return fromProtocol, nil
	}
	return r.URL.Query().Get("access_token"), nil
}

func protocolToken(r *http.Request) (token string, err error) {
	offersUs := false
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(header, ",") {
			p = strings.TrimSpace(p)
			if t, ok := strings.CutPrefix(p, wire.TokenSubprotocol); ok {
				token = t
			}
			offersUs = offersUs || strings.EqualFold(p, wire.Subprotocol)
		}
	}
	if token != "" && !offersUs {
		return "", errors.New("offer " + wire.Subprotocol + " besides the token")
	}
	return token, nil
}

// queryConnect returns the connect request in the query string, or nil if none
// of its parameters is there.
func queryConnect(r *http.Request) (*wire.Request, error) {
	q := r.URL.Query()
	if !q.Has("session") && !q.Has("device") && !q.Has("channel") && !q.Has("connect") {
		return nil, nil
	}
	request := &wire.Request{
		Type: "connect", Session: q.Get("session"), Device: q.Get("device"),
		Channels: make(map[string]string),
	}
	if len(request.Device) > wire.MaxDevice {
		return nil, errors.New("device is too long")
	}
	for _, name := range q["channel"] {
		since := ""
		if i := strings.LastIndexByte(name, '@'); i >= 0 {
			if p, ok := parsePosition(name[i+1:]); ok && p.given {
				name, since = name[:i], name[i+1:]
			}
		}
		if !validChannel(name) {
			return nil, errors.New("channel is not the name of a channel")
		}
		request.Channels[name] = since
	}
	return request, nil
}

// upgrade gives the library the socket in the place of the connection it
// hijacks, and buffers that hold no more than a header: the socket reads ahead.
type upgrade struct {
	gin.ResponseWriter
	socket *socket
}

// libraryBuffer is the least that package bufio allows.
const libraryBuffer = 16

// Hijack implements http.Hijacker.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := u.ResponseWriter.Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // frames that came with the handshake
	if err := u.socket.adopt(nc, early); err != nil {
		_ = nc.Close()
		return nil, nil, err
	}
	return u.socket, bufio.NewReadWriter(
		bufio.NewReaderSize(u.socket, libraryBuffer),
		bufio.NewWriterSize(u.socket, libraryBuffer),
	), nil
}
