package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"wssgateway/gateway/wire"
)

// link is one WebSocket connection, as cheap as it can be: it masks with zeros
// and has one small buffer. It is not safe for concurrent use, but for cut.
type link struct {
	nc net.Conn
	r  *bufio.Reader
	// taken is how much of the buffer the last frame is.
	taken int
}

const (
	linkBuffer     = 4096
	connectTimeout = 30 * time.Second
	// perAddress is how many connections to loopback come from one address of
	// it: an address has some 28,000 ports, and the kernel searches long for the
	// last ones.
	perAddress = 8000
)

// dial opens a connection, the number-th of this process. Query is what follows
// the question mark.
func dial(ctx context.Context, address, query string, number int) (*link, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	nc, err := dialTCP(ctx, u, number)
	if err != nil {
		return nil, err
	}
	l := &link{nc: nc, r: bufio.NewReaderSize(nc, linkBuffer)}
	if err := l.handshake(u, query); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return l, nil
}

func dialTCP(ctx context.Context, u *url.URL, number int) (net.Conn, error) {
	host, port := u.Hostname(), u.Port()
	d := &net.Dialer{KeepAlive: -1}
	if ip := net.ParseIP(host); ip != nil && ip.To4() != nil && ip.IsLoopback() {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+number/perAddress))}
	}
	if u.Scheme == "wss" {
		if port == "" {
			port = "443"
		}
		return (&tls.Dialer{NetDialer: d}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	}
	if port == "" {
		port = "80"
	}
	return d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
}

func (l *link) handshake(u *url.URL, query string) error {
	if err := l.nc.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return err
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	_, err := fmt.Fprintf(l.nc, "GET %s?%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
		path, query, u.Host, wire.Subprotocol)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(l.r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		_ = resp.Body.Close()
		return fmt.Errorf("handshake: %s %s", resp.Status, reason)
	}
	return nil
}

// greeting is the part of a connected frame that matters here.
type greeting struct {
	Type     string `json:"type"`
	Session  string `json:"session"`
	Resumed  bool   `json:"resumed"`
	Ping     int    `json:"ping"`
	Channels map[string]struct {
		Last      string `json:"last"`
		Recovered bool   `json:"recovered"`
		Error     string `json:"error"`
	} `json:"channels"`
}

// greet reads the connected frame. From then on reading has no deadline.
func (l *link) greet() (greeting, error) {
	var g greeting
	_, payload, err := l.next()
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(payload, &g); err != nil || g.Type != "connected" {
		return g, fmt.Errorf("not connected: %s", payload)
	}
	return g, l.nc.SetDeadline(time.Time{})
}

// next returns the next frame, which is valid until the next call, and answers
// pings.
func (l *link) next() (wire.Opcode, []byte, error) {
	for {
		op, payload, err := l.frame()
		if err != nil || op != wire.OpPing {
			return op, payload, err
		}
		if err := l.send(wire.OpPong, payload); err != nil {
			return 0, nil, err
		}
	}
}

func (l *link) frame() (wire.Opcode, []byte, error) {
	if _, err := l.r.Discard(l.taken); err != nil {
		return 0, nil, err
	}
	l.taken = 0
	head, err := l.r.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	op, size, length := wire.Opcode(head[0]&0x0F), 2, int(head[1]&0x7F)
	switch length {
	case 126:
		if head, err = l.r.Peek(4); err != nil {
			return 0, nil, err
		}
		size, length = 4, int(binary.BigEndian.Uint16(head[2:]))
	case 127:
		if head, err = l.r.Peek(10); err != nil {
			return 0, nil, err
		}
		size, length = 10, int(binary.BigEndian.Uint64(head[2:]))
	}
	if size+length > l.r.Size() {
		frame := make([]byte, size+length)
		_, err := io.ReadFull(l.r, frame)
		return op, frame[size:], err
	}
	frame, err := l.r.Peek(size + length)
	if err != nil {
		return 0, nil, err
	}
	l.taken = size + length
	return op, frame[size:], nil
}

// send sends a frame of less than 126 bytes.
func (l *link) send(op wire.Opcode, payload []byte) error {
	frame := make([]byte, 0, 6+len(payload))
	frame = append(frame, 0x80|byte(op), 0x80|byte(len(payload)), 0, 0, 0, 0)
	_, err := l.nc.Write(append(frame, payload...))
	return err
}

// cut ends the connection as a cable that is pulled and plugged in again does:
// with a reset.
func (l *link) cut() {
	if tcp, ok := l.nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else the close only takes longer
	}
	_ = l.nc.Close()
}
