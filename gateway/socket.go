package gateway

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"wssgateway/gateway/wire"
)

// socket is the network connection under a WebSocket, as the library gets it
// and as the hub writes to it.
//
// Reading, it knows where frames begin, answers pings and swallows pongs, so
// that the library is entered only for a frame that is there, and nothing of it
// is in use while the peer is silent. Writing, it sends whole frames, at once if
// the kernel takes them, else from an outbox with a goroutine of its own that
// lives as long as the outbox does.
type socket struct {
	net.Conn
	raw   syscall.RawConn    // nil where waiting is the only way: TLS, in memory
	poll  func(uintptr) bool // s.readReady, made once
	limit int                // bytes the outbox may hold
	owner socketOwner
	seen  *atomic.Int32 // ticks of the wheel
	heard atomic.Int32  // the tick at which something was last read

	// Owned by the goroutine that reads.
	in      *inbuf // nil while empty
	left    int64  // bytes of the frame that the library is reading
	pollErr error

	// Owned by the library's writer.
	control []byte // a control frame that is not whole yet

	mu       sync.Mutex // guards what follows; held during a write that cannot wait
	out      [][]byte   // each a run of whole frames, shared with other sockets
	outPos   int        // bytes of out[0] that are written
	inflight int        // outPos after the write under way
	outBytes int        // not yet written
	flushing bool       // a goroutine sends out
	refused  bool       // a frame did not fit: none but the close frame may follow
	shutting bool       // a close frame was sent, or will be: nothing may follow
	ending   bool       // say that nothing follows once out is empty
	closing  bool       // close once out is empty
	drained  chan struct{}
}

// socketOwner is told how a socket's writing ends. It is called without locks.
type socketOwner interface {
	fail(cause)
}

const (
	// flushPiece is how much is written under one deadline: a peer that takes
	// this much in writeTimeout is slow, but alive.
	flushPiece   = 16 << 10
	writeTimeout = 30 * time.Second
	// kernelBuffer is how much the kernel may take for a peer that does not
	// read. Linux would grow it to four megabytes, which no limit of ours counts,
	// and behind which a ping waits longer than a peer may be silent.
	kernelBuffer = 128 << 10
)

var errEarly = errors.New("too much was sent before the handshake was answered")

// adopt takes a connection over, with what was read from it already.
func (s *socket) adopt(nc net.Conn, early []byte) error {
	s.Conn = nc
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(kernelBuffer) // one that is broken shows soon enough
	}
	s.raw = rawConn(nc)
	s.poll = s.readReady
	if len(early) == 0 {
		return nil
	}
	room := s.room()
	if len(early) > len(room) {
		return errEarly
	}
	s.took(copy(room, early))
	return nil
}

// --- reading

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

// wait is fill for a connection at rest: it holds no buffer while it waits, if
// that can be, and needs little stack.
func (s *socket) wait() error {
	if s.raw == nil {
		return s.fill()
	}
	if err := s.raw.Read(s.poll); err != nil {
		return err
	}
	return s.pollErr
}

// readReady reads what is there. It reports false to be called again once
// there is something.
func (s *socket) readReady(fd uintptr) bool {
	n, err := readNow(fd, s.room())
	switch {
	case n > 0:
		s.took(n)
	case err == nil:
		s.pollErr = io.EOF
	case wouldBlock(err):
		s.release()
		return false
	default:
		s.pollErr = err
	}
	s.release()
	return true
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
			s.left = h.length()
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

// Read gives the library the bytes of the frames that are for it, never beyond
// the end of one.
func (s *socket) Read(p []byte) (int, error) {
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

// --- writing

// send sends a run of whole frames, in order with all others. It does not wait:
// what the kernel does not take goes to the outbox. The bytes must not change
// any more.
func (s *socket) send(frames []byte) {
	s.mu.Lock()
	if s.shutting || s.refused {
		s.mu.Unlock()
		return
	}
	full := s.flushing && s.outBytes+len(frames) > s.limit
	if s.refused = full; !full {
		s.write(frames)
	}
	s.mu.Unlock()
	if full {
		s.owner.fail(causeSlow)
	}
}

// sendIfDrained is send for when the outbox is empty; else it reports false.
func (s *socket) sendIfDrained(frames []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.shutting || s.refused:
	case s.flushing:
		return false
	default:
		s.write(frames)
	}
	return true
}

// write writes frames, or puts them into the outbox. s.mu is held.
func (s *socket) write(frames []byte) {
	n := 0
	if !s.flushing && s.raw != nil {
		n = writeNow(s.raw, frames)
		if n == len(frames) {
			return
		}
	}
	s.out = append(s.out, frames)
	s.outBytes += len(frames) - n
	if !s.flushing {
		s.outPos, s.flushing = n, true
		go s.flush()
	}
}

// flush sends the outbox until it is empty.
func (s *socket) flush() {
	for {
		piece, ok := s.piece()
		if !ok {
			return
		}
		_ = s.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		n, err := s.Conn.Write(piece)
		if err != nil {
			s.abandon()
			s.owner.fail(causeOfWrite(err))
			return
		}
		s.wrote(n)
	}
}

// piece returns what is to be written next; false ends the flushing.
func (s *socket) piece() ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out) > 0 {
		s.inflight = min(s.outPos+flushPiece, len(s.out[0]))
		return s.out[0][s.outPos:s.inflight], true
	}
	s.out, s.flushing = nil, false
	_ = s.Conn.SetWriteDeadline(time.Time{})
	switch {
	case s.closing:
		_ = s.Conn.Close()
	case s.ending:
		s.endWriting()
	}
	s.signalDrained()
	return nil, false
}

// endWriting closes one direction of the connection, where that can be.
func (s *socket) endWriting() {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// wrote takes in that the peer has made room for n bytes: a sign of life too,
// as its pongs wait behind all that it has not read yet.
func (s *socket) wrote(n int) {
	s.heard.Store(s.seen.Load())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outPos += n
	s.outBytes -= n
	if s.outPos == len(s.out[0]) {
		s.out, s.outPos, s.inflight = s.out[1:], 0, 0
	}
}

// abandon gives the outbox up.
func (s *socket) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out, s.outBytes, s.flushing, s.shutting = nil, 0, false, true
	s.signalDrained()
}

// awaitDrained waits until the outbox is empty, or will never be.
func (s *socket) awaitDrained() {
	s.mu.Lock()
	if !s.flushing {
		s.mu.Unlock()
		return
	}
	if s.drained == nil {
		s.drained = make(chan struct{})
	}
	wait := s.drained
	s.mu.Unlock()
	<-wait
}

// signalDrained wakes those who wait for an empty outbox. s.mu is held.
func (s *socket) signalDrained() {
	if s.drained != nil {
		close(s.drained)
		s.drained = nil
	}
}

// shut sends a close frame as the last one. With drop, what waits in the outbox
// is given up, but for the frame that the peer has begun to receive; it returns
// how many bytes that were.
func (s *socket) shut(closeFrame []byte, drop bool) (dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shutting {
		return 0
	}
	s.shutting = true
	if drop && len(s.out) > 0 {
		dropped = s.truncate()
	}
	s.write(closeFrame)
	return dropped
}

// truncate gives up what comes after the frame that is being sent. s.mu is held.
func (s *socket) truncate() (dropped int) {
	before := s.outBytes
	rest := s.out[0][:wire.FrameEnd(s.out[0], max(s.outPos, s.inflight))]
	s.out, s.outBytes = [][]byte{rest}, len(rest)-s.outPos
	dropped = before - s.outBytes
	if s.outBytes == 0 {
		s.out, s.outPos, s.inflight = nil, 0, 0
	}
	return dropped
}

// Write takes the library's control frames. It makes them whole before they go
// out between other frames.
func (s *socket) Write(p []byte) (int, error) {
	s.control = append(s.control, p...)
	if len(s.control) < 2 || len(s.control) < 2+int(s.control[1]) {
		return len(p), nil
	}
	frame := s.control
	s.control = nil
	if wire.Opcode(frame[0]&0x0F) == wire.OpClose {
		s.shut(frame, false)
	} else {
		s.send(frame)
	}
	return len(p), nil
}

// Close closes the connection once the outbox is empty.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shutting = true
	if s.flushing {
		s.closing = true
		return nil
	}
	return s.Conn.Close()
}

// idle reports whether nothing is left to be sent.
func (s *socket) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.flushing
}

// cut closes the connection now.
func (s *socket) cut() { _ = s.Conn.Close() }

// SetReadDeadline and the like are the socket's own affair.
func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
