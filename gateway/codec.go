package gateway

import (
	"bufio"
	"fmt"
	"net"
	"net/http"

	"github.com/coder/websocket"

	"wssgateway/gateway/wire"
)

// codec is a connection of the library's. From one message to the next it keeps
// nothing of the peer, so it is lent to a socket for the time in which a message
// is read: a socket at rest has none.
type codec struct {
	ws   *websocket.Conn
	line line
}

// line is what a codec takes for its network connection: the socket that it is
// lent to.
type line struct{ *socket } // nil: lent to nobody

// Close implements net.Conn. The library also closes what it has forgotten.
func (l *line) Close() error {
	if l.socket == nil {
		return nil
	}
	return l.socket.Close()
}

// codecs lends codecs that are alike.
type codecs struct {
	free      chan *codec
	readLimit int64 // of a message, in bytes, decompressed
	deflate   bool
}

// freeCodecs is how many are kept for the next message. Every handshake brings
// one, so there are soon enough, and mostly too many.
const freeCodecs = 256

func newCodecs(readLimit int64, deflate bool) *codecs {
	return &codecs{make(chan *codec, freeCodecs), readLimit, deflate}
}

func (p *codecs) lend(s *socket) *codec {
	var k *codec
	select {
	case k = <-p.free:
	default:
		k = p.make()
	}
	k.line.socket = s
	return k
}

// back takes a codec back whose message was read to its end.
func (p *codecs) back(k *codec) {
	k.line.socket = nil
	select {
	case p.free <- k:
	default:
		k.drop()
	}
}

// drop gives up a codec: it has seen an error, or nobody needs it. The library
// wants to be told, or it would keep it for a finalizer.
func (k *codec) drop() {
	k.line.socket = nil
	_ = k.ws.CloseNow()
}

// acceptWebSocket answers a handshake, and has the socket adopt its connection. It reports
// whether compression was agreed upon: each message by itself, so that a codec
// keeps nothing of a peer, nor a peer of another message.
func (g *Gateway) acceptWebSocket(w http.ResponseWriter, r *http.Request, s *socket) (deflates bool, err error) {
	o := websocket.AcceptOptions{Subprotocols: []string{wire.Subprotocol}, OriginPatterns: g.cfg.Origins}
	if g.cfg.Compression {
		o.CompressionMode = websocket.CompressionNoContextTakeover
	}
	k := &codec{line: line{s}}
	if k.ws, err = websocket.Accept(&upgrade{w, k}, r, &o); err != nil {
		return false, err
	}
	deflates = w.Header().Get("Sec-WebSocket-Extensions") != ""
	codecs := g.codecs(deflates)
	k.ws.SetReadLimit(codecs.readLimit)
	codecs.back(k)
	return deflates, nil
}

// codecs returns the codecs for connections that compress, or for the others.
func (g *Gateway) codecs(deflates bool) *codecs {
	if deflates {
		return g.deflating
	}
	return g.plain
}

// make makes a codec of which no connection was accepted: more read at the same
// time than were lately accepted.
func (p *codecs) make() *codec {
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}
	o := &websocket.AcceptOptions{}
	if p.deflate {
		r.Header.Set("Sec-WebSocket-Extensions", "permessage-deflate")
		o.CompressionMode = websocket.CompressionNoContextTakeover
	}
	k := &codec{}
	var err error
	if k.ws, err = websocket.Accept(&upgrade{nobody{}, k}, r, o); err != nil {
		panic(fmt.Sprintf("gateway: a handshake of our own: %v", err))
	}
	k.ws.SetReadLimit(p.readLimit)
	return k
}

// upgrade gives the library a codec's line in the place of the connection that
// it hijacks, and buffers that hold no more than a header: the socket reads ahead.
type upgrade struct {
	http.ResponseWriter
	codec *codec
}

// libraryBuffer is the least that package bufio allows.
const libraryBuffer = 16

// Hijack implements http.Hijacker.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if s := u.codec.line.socket; s != nil {
		nc, rw, err := u.ResponseWriter.(http.Hijacker).Hijack()
		if err != nil {
			return nil, nil, err
		}
		early, _ := rw.Peek(rw.Reader.Buffered()) // frames that came with the handshake
		if err := s.adopt(nc, early); err != nil {
			_ = nc.Close()
			return nil, nil, err
		}
	}
	l := &u.codec.line
	return l, bufio.NewReadWriter(bufio.NewReaderSize(l, libraryBuffer), bufio.NewWriterSize(l, libraryBuffer)), nil
}

// WriteHeaderNow has gin send the header, which it puts off.
func (u *upgrade) WriteHeaderNow() {
	if w, ok := u.ResponseWriter.(interface{ WriteHeaderNow() }); ok {
		w.WriteHeaderNow()
	}
}

// nobody is who sent a handshake of our own.
type nobody struct{}

func (nobody) Header() http.Header         { return http.Header{} }
func (nobody) Write(b []byte) (int, error) { return len(b), nil }
func (nobody) WriteHeader(int)             {}
