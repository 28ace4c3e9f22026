package gateway

import (
	"time"

	"wssgateway/gateway/wire"
)

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
