package transport

import (
	"compress/flate"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// echo is a connection that sends every message back, and the peer's end of it.
type echo struct {
	Conn
	peer     net.Conn
	messages []string      // to be read when it is gone
	gone     chan struct{} // closed when it is
}

func (e *echo) Message(binary bool, data []byte) {
	kind, op := "text ", wire.OpText
	if binary {
		kind, op = "binary ", wire.OpBinary
	}
	e.messages = append(e.messages, kind+string(data))
	frame := wire.Frame(op, len(data), func(b []byte) []byte { return append(b, data...) })
	if e.Compresses() {
		frame = wire.Deflate(frame)
	}
	e.Send(frame)
}

func (e *echo) Alarm()     {}
func (e *echo) End(*Cause) {}
func (e *echo) Gone()      { close(e.gone) }

// Do implements Task.
func (e *echo) Do() { e.Start(nil) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// runTransport returns a transport that runs until the test is over.
func runTransport(t testing.TB, cfg Config) *Transport {
	t.Helper()
	tr := newTransport(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { tr.Run(ctx); close(over) }()
	t.Cleanup(func() { cancel(); <-over })
	return tr
}

// startEcho starts a connection.
func startEcho(tr *Transport, server, peer net.Conn, compresses bool) *echo {
	e := &echo{peer: peer, gone: make(chan struct{})}
	_ = peer.SetDeadline(time.Now().Add(patience))
	tr.Adopt(server, nil, compresses, &e.Conn, e)
	tr.Work(e)
	return e
}

// awaitGone waits until a connection is over, and closes the peer's end.
func (e *echo) awaitGone(t testing.TB) {
	t.Helper()
	select {
	case <-e.gone:
	case <-time.After(patience):
		t.Fatal("the connection goes on")
	}
	e.peer.Close()
	e.AwaitDrained()
}

// reply returns the next frame of a server: its kind and payload, or its close code.
func reply(r io.Reader) (string, error) {
	frame, err := wiretest.ReadFrame(r)
	if err != nil {
		return "", err
	}
	head := 2
	switch frame[1] {
	case 126:
		head = 4
	case 127:
		head = 10
	}
	payload := string(frame[head:])
	if frame[0]&rsv1 != 0 {
		inflated, err := io.ReadAll(flate.NewReader(strings.NewReader(payload + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
		if err != nil {
			return "", err
		}
		payload = string(inflated)
	}
	switch op := wire.Opcode(frame[0] &^ rsv1 &^ fin); op {
	case wire.OpText:
		return "text " + payload, nil
	case wire.OpBinary:
		return "binary " + payload, nil
	case wire.OpPong:
		return "pong " + payload, nil
	case wire.OpClose:
		if payload == "" {
			return "close", nil
		}
		return fmt.Sprint("close ", binary.BigEndian.Uint16([]byte(payload))), nil
	default:
		return "", fmt.Errorf("a frame of opcode %d", op)
	}
}

// replies returns the frames of a server up to its close frame.
func replies(r io.Reader) (got []string, err error) {
	for {
		next, err := reply(r)
		if err != nil {
			return got, err
		}
		if got = append(got, next); strings.HasPrefix(next, "close") {
			return got, nil
		}
	}
}
