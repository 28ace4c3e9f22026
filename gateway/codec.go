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

// codecs lends codecs.
type codecs struct {
	free      chan *codec
	readLimit int64 // of a message, in bytes
}

// freeCodecs is how many are kept for the next message. Every handshake brings
// one, so there are soon enough, and mostly too many.
const freeCodecs = 256

func newCodecs(readLimit int64) *codecs {
	return &codecs{free: make(chan *codec, freeCodecs), readLimit: readLimit}
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

// accept answers a handshake, and has the socket adopt its connection.
func (p *codecs) accept(w http.ResponseWriter, r *http.Request, s *socket, o *websocket.AcceptOptions) error {
	k := &codec{line: line{s}}
	if err := k.accept(w, r, o, p.readLimit); err != nil {
		return err
	}
	p.back(k)
	return nil
}

func (k *codec) accept(w http.ResponseWriter, r *http.Request, o *websocket.AcceptOptions, readLimit int64) (err error) {
	if k.ws, err = websocket.Accept(&upgrade{w, k}, r, o); err == nil {
		k.ws.SetReadLimit(readLimit)
	}
	return err
}

// make makes a codec of which no connection was accepted: more read at the same
// time than were lately accepted.
func (p *codecs) make() *codec {
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		"Sec-Websocket-Protocol": {wire.Subprotocol},
	}}
	k := &codec{}
	if err := k.accept(nobody{}, r, nil, p.readLimit); err != nil {
		panic(fmt.Sprintf("gateway: a handshake of our own: %v", err))
	}
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
