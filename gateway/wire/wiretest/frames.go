// Package wiretest makes WebSocket frames by hand, for tests: also such as no
// library would send.
package wiretest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"

	"wssgateway/gateway/wire"
)

// ClientFrame returns a frame as a client sends it, masked.
func ClientFrame(op wire.Opcode, payload string) []byte {
	return Masked(0x80|byte(op), payload)
}

// Masked is ClientFrame with any first byte: FIN, reserved bits and opcode.
func Masked(first byte, payload string) []byte {
	b := wire.AppendHeader(nil, 0, len(payload))
	b[0] = first
	b[1] |= 0x80
	key := []byte{1, 2, 3, 4}
	b = append(b, key...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// ServerFrame returns a frame as a server sends it.
func ServerFrame(op wire.Opcode, payload string) []byte {
	return append(wire.AppendHeader(nil, op, len(payload)), payload...)
}

// ReadFrame returns the next frame of a server, with its header. It returns io.EOF
// only between frames.
func ReadFrame(r io.Reader) ([]byte, error) {
	frame := make([]byte, 2, 64)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	switch frame[1] {
	case 126:
		frame = frame[:4]
	case 127:
		frame = frame[:10]
	}
	_, err := io.ReadFull(r, frame[2:])
	if err == nil {
		head := len(frame)
		frame = slices.Grow(frame, frameSize(frame)-head)[:frameSize(frame)]
		_, err = io.ReadFull(r, frame[head:])
	}
	if err != nil {
		return nil, errors.Join(errors.New("torn frame"), io.ErrUnexpectedEOF)
	}
	return frame, nil
}

// ReadFrames reads frames of a server until it closes, or n are there.
func ReadFrames(t testing.TB, r io.Reader, n int) (frames [][]byte) {
	t.Helper()
	for len(frames) != n {
		frame, err := ReadFrame(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d frames: %v", len(frames), err)
		}
		frames = append(frames, frame)
	}
	return frames
}

func frameSize(header []byte) int {
	switch n := int(header[1]); n {
	case 126:
		return 4 + int(binary.BigEndian.Uint16(header[2:]))
	case 127:
		return 10 + int(binary.BigEndian.Uint64(header[2:]))
	default:
		return 2 + n
	}
}

// SmallPair returns the two ends of a connection in which little has room.
func SmallPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetsockoptInt(fds[0], syscall.SOL_SOCKET, syscall.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return conns[0], conns[1]
}

// TCPPair returns the two ends of a TCP connection.
func TCPPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return server, client
}
