package attack

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// openTimeout bounds a handshake.
	openTimeout = 10 * time.Second
	// writeTimeout is how long the gateway may take nothing of what is written.
	writeTimeout = 3 * time.Second
	// lastWords is how long what the gateway still says is listened to when the
	// attack is over.
	lastWords = 300 * time.Millisecond
	// smallWindow is SO_RCVBUF of a peer that does not read.
	smallWindow = 2048
)

// way is how a peer connects. Without a user it has no token.
type way struct {
	user     string
	channels []string
	deflate  bool // offers permessage-deflate
	window   int  // SO_RCVBUF; 0: the system's
}

// peer is one connection to the gateway.
type peer struct {
	front *front
	ctx   context.Context // the attack's
	conn  net.Conn
	r     *bufio.Reader
	stop  func() bool
}

// dial makes a TCP connection.
func (f *front) dial(ctx context.Context, addr string, window int) (*peer, error) {
	d := net.Dialer{Timeout: openTimeout}
	if window > 0 {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) {
				failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, window)
			})
			return errors.Join(err, failed)
		}
	}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		if ctx.Err() == nil {
			f.saw("no connection")
		}
		return nil, err
	}
	p := &peer{front: f, ctx: ctx, conn: conn, r: bufio.NewReaderSize(conn, 512)}
	p.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now().Add(lastWords)) })
	return p, nil
}

// open makes a WebSocket of a connection.
func (f *front) open(ctx context.Context, w way) (*peer, error) {
	p, err := f.dial(ctx, f.target.Public, w.window)
	if err != nil {
		return nil, err
	}
	if err := p.handshake(w); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *peer) handshake(w way) error {
	p.deadline(openTimeout)
	if _, err := p.conn.Write([]byte(p.front.request(w, ""))); err != nil {
		return err
	}
	resp, err := http.ReadResponse(p.r, nil) //nolint:bodyclose // closes with the connection
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		reaction := fmt.Sprint("HTTP ", resp.StatusCode)
		p.front.saw(reaction)
		return errors.New(reaction)
	}
	return nil
}

// request returns the request of a handshake, with some headers more.
func (f *front) request(w way, more string) string {
	var b strings.Builder
	b.WriteString("GET /ws")
	if w.user != "" {
		query := url.Values{"connect": {"1"}, "access_token": {f.target.token(w.user)}, "channel": w.channels}
		b.WriteString("?" + query.Encode())
	}
	b.WriteString(" HTTP/1.1\r\nHost: " + f.target.Public + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
	if w.deflate {
		b.WriteString("Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n")
	}
	b.WriteString(more + "\r\n")
	return b.String()
}

// token returns a token of a user who may do what attackers may: read and write
// what is open to everybody.
func (t Target) token(user string) string {
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "exp": time.Now().Add(time.Hour).Unix(),
		"subscribe": []string{"open:*", "big:*", "busy:*", "lobby:*"}, "publish": []string{"open:*"},
	}).SignedString([]byte(t.Secret))
	if err != nil {
		panic(err) // HMAC of a few strings
	}
	return s
}

// deadline gives what is done next so much time, or less if the attack is over.
func (p *peer) deadline(d time.Duration) {
	_ = p.conn.SetDeadline(time.Now().Add(d))
	if p.ctx.Err() != nil {
		_ = p.conn.SetDeadline(time.Now().Add(lastWords))
	}
}

// close closes the connection.
func (p *peer) close() {
	p.stop()
	_ = p.conn.Close()
}

// send writes bytes, which are so many acts.
func (p *peer) send(acts int, b []byte) error {
	_ = p.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	n, err := p.conn.Write(b)
	p.front.acted(acts*n/max(1, len(b)), n)
	return err
}

// half says that there is nothing more to come, and still reads.
func (p *peer) half() {
	if c, ok := p.conn.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
}

// connected reads until the gateway has answered the connect request; false if it
// does not.
func (p *peer) connected() bool {
	p.deadline(reactPatience)
	for {
		said, err := p.read()
		if err != nil {
			return false
		}
		p.front.saw(said)
		if said == "connected" {
			return true
		}
	}
}

// react reads for d, or until the connection ends, and counts what comes, the end
// too: "closed" with the code, "cut" without one, or "open" if there is none.
func (p *peer) react(d time.Duration) (end string) {
	p.deadline(d)
	for {
		said, err := p.read()
		switch {
		case isTimeout(err):
			said = "open"
		case err != nil:
			said = "cut"
		}
		p.front.saw(said)
		if err != nil || strings.HasPrefix(said, "closed") {
			return said
		}
	}
}

const (
	// shown is how much of a message is looked at.
	shown = 160
	// shownOf is of how much of it that is, if it is compressed.
	shownOf = 2048
)

// read reads a frame and returns what it is called.
func (p *peer) read() (string, error) {
	first, n, err := p.readHeader()
	if err != nil {
		return "", err
	}
	look := int64(shown)
	if first&rsv1 != 0 {
		look = shownOf
	}
	b := make([]byte, min(n, look))
	if _, err := io.ReadFull(p.r, b); err != nil {
		return "", err
	}
	if _, err := io.CopyN(io.Discard, p.r, n-int64(len(b))); err != nil {
		return "", err
	}
	if first&rsv1 != 0 {
		inflated := make([]byte, shown)
		got, _ := io.ReadFull(flate.NewReader(bytes.NewReader(b)), inflated) // what is not there is cut off
		first, b = first&^rsv1, inflated[:got]
	}
	return name(first, b), nil
}

func (p *peer) readHeader() (first byte, n int64, err error) {
	var b [8]byte
	if _, err := io.ReadFull(p.r, b[:2]); err != nil {
		return 0, 0, err
	}
	first, n = b[0], int64(b[1])
	switch n {
	case 126:
		_, err = io.ReadFull(p.r, b[:2])
		n = int64(binary.BigEndian.Uint16(b[:]))
	case 127:
		_, err = io.ReadFull(p.r, b[:8])
		n = int64(binary.BigEndian.Uint64(b[:]))
	}
	return first, n, err
}

// name returns what a frame of the gateway is called: the type of its message, for
// an error also the code.
func name(first byte, payload []byte) string {
	switch {
	case first == fin|0x8 && len(payload) >= 2:
		return fmt.Sprint("closed ", binary.BigEndian.Uint16(payload))
	case first == fin|0x8:
		return "closed"
	case first == fin|0x9:
		return "ping frame"
	case first == fin|0xA:
		return "pong frame"
	case first == fin|binaryData:
		return "binary"
	}
	kind := field(payload, "type")
	if kind == "error" {
		return "error " + field(payload, "code")
	}
	return kind
}

// field returns a field of an object that holds no such quoted text elsewhere.
func field(object []byte, name string) string {
	_, after, _ := bytes.Cut(object, []byte(`"`+name+`":"`))
	value, _, _ := bytes.Cut(after, []byte(`"`))
	return string(value)
}

// isTimeout reports whether an operation has failed for its deadline.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
