package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"wssgateway/gateway/wire"
)

// inbuf is what was read and not yet taken. It is on loan while it is needed.
type inbuf struct {
	head, tail int
	data       [4096]byte
}

var inbufs = sync.Pool{New: func() any { return new(inbuf) }}

func (s *socket) buffered() []byte {
	if s.in == nil {
		return nil
	}
	return s.in.data[s.in.head:s.in.tail]
}

// room returns where the next bytes go.
func (s *socket) room() []byte {
	if s.in == nil {
		s.in = inbufs.Get().(*inbuf)
		s.in.head, s.in.tail = 0, 0
	}
	b := s.in
	if b.head > 0 {
		b.tail = copy(b.data[:], b.data[b.head:b.tail])
		b.head = 0
	}
	return b.data[b.tail:]
}

// took takes in that n bytes came.
func (s *socket) took(n int) {
	s.in.tail += n
	s.heard.Store(s.seen.Load())
}

func (s *socket) consume(n int) {
	s.in.head += n
	s.release()
}

// release gives the buffer back if there is nothing in it.
func (s *socket) release() {
	if s.in != nil && s.in.head == s.in.tail {
		inbufs.Put(s.in)
		s.in = nil
	}
}

// fill waits for bytes.
func (s *socket) fill() error {
	n, err := s.Conn.Read(s.room())
	if n > 0 {
		s.took(n)
		return nil
	}
	s.release()
	return err
}

// discard reads on, for nothing, until the peer has closed. It is told that
// nothing follows, and so does not wait for the end of the connection either.
func (s *socket) discard() {
	s.mu.Lock()
	s.ending = true
	if !s.flushing {
		s.endWriting()
	}
	s.mu.Unlock()
	for s.fill() == nil {
		s.in.head = s.in.tail
		s.release()
	}
}

// wait is fill for a goroutine whose stack is to stay small. It holds no buffer
// while it waits, if that can be.
func (s *socket) wait() error {
	if s.raw == nil {
		return s.fill()
	}
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		var came bool
		came, failed = s.readFrom(fd)
		return came || failed != nil
	})
	return errors.Join(err, failed)
}

// readNow reads what is there, and reports whether that is anything.
func (s *socket) readNow() (bool, error) {
	r := rawReads.Get().(*rawRead)
	r.socket = s
	err := s.raw.Read(r.do)
	came, failed := r.came, r.err
	*r = rawRead{do: r.do}
	rawReads.Put(r)
	if err == nil {
		err = failed
	}
	return came, err
}

// rawRead is one read through a RawConn. It is pooled with the closure that
// RawConn wants, so that a read allocates nothing.
type rawRead struct {
	socket *socket
	came   bool
	err    error
	do     func(uintptr) bool // r.read, made once
}

var rawReads = sync.Pool{New: func() any {
	r := new(rawRead)
	r.do = r.read
	return r
}}

func (r *rawRead) read(fd uintptr) bool {
	r.came, r.err = r.socket.readFrom(fd)
	return true
}

// readFrom is one read(2).
func (s *socket) readFrom(fd uintptr) (came bool, err error) {
	n, err := readNow(fd, s.room())
	switch {
	case n > 0:
		s.took(n)
	case err == nil:
		err = io.EOF
	case wouldBlock(err):
		err = nil
	}
	s.release()
	return n > 0, err
}

// next handles the pings and pongs that have come, and reports whether a frame
// for the library begins in the buffer.
func (s *socket) next() bool {
	for {
		h, ok := parseFrameHeader(s.buffered())
		if !ok {
			return false
		}
		if !h.pingOrPong() {
			s.begin(h)
			return true
		}
		frame := s.buffered()
		if int64(len(frame)) < h.length() {
			return false
		}
		frame = frame[:h.length()]
		if h.op == wire.OpPing {
			s.send(h.pong(frame))
		}
		s.consume(len(frame))
	}
}

// begin takes in the header of a frame for the library.
func (s *socket) begin(h frameHeader) {
	s.left = h.length()
	if h.op&0x8 == 0 { // data
		s.compressed = h.rsv1 || h.op == 0 && s.compressed
		s.unfinished = !h.final
	}
}

var (
	// errLost is the end of the connection inside a message. The library must not
	// see io.EOF: it would take it for the end of the message.
	errLost = errors.New("connection ended inside a message")
	// errUnread is a message that was over before its frames were.
	errUnread = errors.New("message ends before its frames")
)

// messageOver reports whether the message ended where its last frame does.
func (s *socket) messageOver() bool { return s.left == 0 && !s.unfinished }

// Read gives the library the bytes of the frames that are for it, never beyond
// the end of one.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.readFrames(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errLost, hideEOF(err))
	}
	return n, err
}

func hideEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("EOF")
	}
	return err
}

func (s *socket) readFrames(p []byte) (int, error) {
	for s.left == 0 && !s.next() {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	if len(s.buffered()) == 0 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	b := s.buffered()
	n := copy(p, b[:min(int64(len(b)), s.left)])
	s.left -= int64(n)
	s.consume(n)
	return n, nil
}

// frameHeader is the header of a frame from a client (RFC 6455, section 5.2).
type frameHeader struct {
	op      wire.Opcode
	plain   bool // final, and no reserved bit is set
	final   bool
	rsv1    bool // of a compressed message's first frame
	masked  bool
	size    int // of the header
	payload int64
}

// parseFrameHeader reports false if b does not hold a whole header yet.
func parseFrameHeader(b []byte) (h frameHeader, ok bool) {
	if len(b) < 2 {
		return h, false
	}
	h = frameHeader{
		op:     wire.Opcode(b[0] & 0x0F),
		plain:  b[0]&0xF0 == 0x80,
		final:  b[0]&0x80 != 0,
		rsv1:   b[0]&0x40 != 0,
		masked: b[1]&0x80 != 0,
		size:   2, payload: int64(b[1] & 0x7F),
	}
	extended := 0 // bytes of the length, if it is not in the second byte
	switch h.payload {
	case 126:
		extended = 2
	case 127:
		extended = 8
	}
	h.size += extended
	if h.masked {
		h.size += 4
	}
	if len(b) < h.size {
		return h, false
	}
	switch extended {
	case 2:
		h.payload = int64(binary.BigEndian.Uint16(b[2:]))
	case 8:
		h.payload = int64(min(binary.BigEndian.Uint64(b[2:]), 1<<62))
	}
	return h, true
}

func (h frameHeader) length() int64 { return int64(h.size) + h.payload }

// pingOrPong reports whether the frame is a ping or pong as it should be. Any
// other one is the library's to refuse.
func (h frameHeader) pingOrPong() bool {
	return h.plain && h.masked && h.payload <= 125 && (h.op == wire.OpPing || h.op == wire.OpPong)
}

// pong returns the answer to a ping: its payload, unmasked.
func (h frameHeader) pong(ping []byte) []byte {
	key, payload := ping[h.size-4:h.size], ping[h.size:]
	pong := wire.AppendHeader(make([]byte, 0, 2+len(payload)), wire.OpPong, len(payload))
	for i, c := range payload {
		pong = append(pong, c^key[i%4])
	}
	return pong
}
