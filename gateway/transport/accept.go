package transport

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// Accept answers a handshake and makes c the connection of its peer, whose events
// go to h once Start was called. The handshake, the origin and compression are the
// library's to judge; nothing else of it is used. If Accept fails, the answer was
// given.
func (t *Transport) Accept(w http.ResponseWriter, r *http.Request, c *Conn, h Handler) error {
	o := websocket.AcceptOptions{OriginPatterns: t.cfg.Origins, Subprotocols: []string{t.cfg.Subprotocol}}
	if t.cfg.Compression {
		// Each message by itself, so that its bytes are the same for all.
		o.CompressionMode = websocket.CompressionNoContextTakeover
	}
	u := &upgrade{ResponseWriter: w}
	ws, err := websocket.Accept(u, r, &o)
	if err != nil {
		if u.nc != nil {
			_ = u.nc.Close()
		}
		return err
	}
	_ = ws.CloseNow() // of an unplugged connection
	if len(u.early) > maxEarly {
		_ = u.nc.Close()
		return errEarly
	}
	t.Adopt(u.nc, u.early, w.Header().Get("Sec-WebSocket-Extensions") != "", c, h)
	return nil
}

var errEarly = errors.New("too much was sent before the handshake was answered")

// upgrade keeps the connection that the library hijacks, and gives it one that leads
// nowhere.
type upgrade struct {
	http.ResponseWriter
	nc    net.Conn
	early []byte // frames that came with the handshake
}

// libraryBuffer is the least that package bufio allows.
const libraryBuffer = 16

// Hijack implements http.Hijacker.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.nc = nc
	u.early, _ = rw.Peek(rw.Reader.Buffered())
	return unplugged{}, bufio.NewReadWriter(
		bufio.NewReaderSize(unplugged{}, libraryBuffer), bufio.NewWriterSize(unplugged{}, libraryBuffer)), nil
}

// WriteHeaderNow has gin send the header, which it puts off.
func (u *upgrade) WriteHeaderNow() {
	if w, ok := u.ResponseWriter.(interface{ WriteHeaderNow() }); ok {
		w.WriteHeaderNow()
	}
}

// unplugged is a connection that leads nowhere.
type unplugged struct{}

func (unplugged) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (unplugged) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (unplugged) Close() error                     { return nil }
func (unplugged) LocalAddr() net.Addr              { return nil }
func (unplugged) RemoteAddr() net.Addr             { return nil }
func (unplugged) SetDeadline(time.Time) error      { return nil }
func (unplugged) SetReadDeadline(time.Time) error  { return nil }
func (unplugged) SetWriteDeadline(time.Time) error { return nil }
