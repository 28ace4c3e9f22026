package transport

import (
	"encoding/binary"
	"unicode/utf8"

	"wssgateway/gateway/wire"
)

// maxFragments is of how many frames a message may consist.
const maxFragments = 1024

// event is what a decoder has found.
type event uint8

const (
	eventNone    event = iota // all bytes are used, and more are needed
	eventMessage              // a whole message
	eventPing
	eventPong
	eventClose // the last event
)

// decoder turns the bytes that a client sends into messages and control frames
// (RFC 6455, section 5; RFC 7692). It is a state machine that is fed with what has
// come, cut anywhere, and keeps of a frame or message that is not whole yet just
// that much: between messages it keeps nothing. A message exists only when its last
// byte has come; a stream that ends inside one has no message.
//
// The zero decoder with its limit set is ready. It is owned by the goroutine that
// reads.
type decoder struct {
	limit      int  // bytes of a message, in frames or inflated
	compresses bool // permessage-deflate was agreed upon
	skims      bool // messages are passed over: only control frames count
	part       *partial
}

// partial is a message, or a frame, that has begun to come.
type partial struct {
	head    [maxHeader]byte // of a frame whose header is not whole
	headLen int

	// The frame whose payload is coming.
	inFrame bool
	frame   header
	got     int // bytes of its payload

	control    [maxControl]byte
	controlLen int

	// The message that is coming, perhaps with control frames in between.
	inMessage  bool
	binary     bool
	compressed bool
	fragments  int
	announced  int // bytes of its payload on the wire, by the headers so far
	message    []byte
}

// idle reports whether nothing has come in part.
func (d *decoder) idle() bool { return d.part == nil }

// size returns how much memory is kept for what has come in part.
func (d *decoder) size() int {
	if d.part == nil {
		return 0
	}
	return partialSize + cap(d.part.message)
}

// partialSize is the size class of a partial.
const partialSize = 288

// found is a message or a control frame. Its data is valid until the decoder is
// used again.
type found struct {
	event  event
	binary bool // of a message
	data   []byte
	// of a close frame; CloseNone if it has none
	code wire.CloseCode
}

// next takes in bytes up to the next message or control frame, and returns what is
// left of them. It changes b, and may return a part of it. The error is the cause
// for which the connection must end.
func (d *decoder) next(b []byte) (f found, rest []byte, err *Cause) {
	for {
		var h header
		got := 0
		if d.part != nil && d.part.inFrame {
			h, got = d.part.frame, d.part.got
		} else {
			var ok bool
			if h, b, ok = d.header(b); !ok {
				return found{}, nil, nil
			}
			if err := d.begins(&h); err != nil {
				return found{}, nil, err
			}
		}
		f, b, err = d.payload(&h, got, b)
		if err != nil || f.event != eventNone || d.part != nil && d.part.inFrame {
			return f, b, err
		}
	}
}

// header returns the header of the next frame; false if it is not whole.
func (d *decoder) header(b []byte) (h header, rest []byte, ok bool) {
	if d.part == nil || d.part.headLen == 0 {
		if n := headerSize(b); len(b) >= n {
			return parseHeader(b), b[n:], true
		}
		if len(b) == 0 {
			return h, nil, false
		}
	}
	p := d.begin()
	for p.headLen < headerSize(p.head[:p.headLen]) {
		if len(b) == 0 {
			return h, nil, false
		}
		p.head[p.headLen] = b[0]
		p.headLen++
		b = b[1:]
	}
	h = parseHeader(p.head[:p.headLen])
	p.headLen = 0
	return h, b, true
}

// begin returns what has come in part, new if there is nothing.
func (d *decoder) begin() *partial {
	if d.part == nil {
		d.part = new(partial)
	}
	return d.part
}

// settle lets the partial go if nothing is in it.
func (d *decoder) settle() {
	if p := d.part; p != nil && !p.inMessage && !p.inFrame && p.headLen == 0 {
		d.part = nil
	}
}

// begins takes in a header, and says what is wrong with it, if anything (RFC 6455,
// section 5).
func (d *decoder) begins(h *header) *Cause {
	p := d.part
	inMessage := p != nil && p.inMessage
	switch {
	case !h.masked, !h.minimal, h.reserved, h.payload>>63 != 0:
		return Violation
	case h.control() && (!h.final || h.payload > maxControl || h.rsv != 0):
		return Violation
	case h.control():
		return nil
	case (h.op == opContinuation) != inMessage:
		return Violation
	case h.rsv != 0 && (h.rsv != wire.RSV1 || !d.compresses || inMessage):
		return Violation
	}
	most := d.limit
	if h.rsv != 0 || inMessage && p.compressed {
		most += deflateSlack(d.limit)
	}
	switch {
	case h.payload > uint64(most):
		return TooBig
	case !inMessage:
		return nil
	}
	p.fragments++
	p.announced += int(h.payload)
	switch {
	case p.announced > most:
		return TooBig
	case p.fragments > maxFragments:
		return Flood
	}
	return nil
}

// deflateSlack returns by how much a message of n bytes may grow when it is
// compressed: what does not shrink is stored, with five bytes for every 16 KiB or
// less.
func deflateSlack(n int) int { return n>>8 + 64 }

// payload takes in bytes of a frame's payload, of which got have come before.
func (d *decoder) payload(h *header, got int, b []byte) (found, []byte, *Cause) {
	n := min(len(b), int(h.payload)-got)
	piece, rest := b[:n:n], b[n:] // who appends to a message does not write into the rest
	unmask(piece, h.key, got)
	whole := got+n == int(h.payload)
	if h.control() {
		return d.controlPayload(h, piece, got, whole, rest)
	}
	inMessage := d.part != nil && d.part.inMessage
	if !inMessage && h.final && whole {
		d.settle()
		f, err := d.message(h.op == wire.OpBinary, h.rsv == wire.RSV1, piece)
		return f, rest, err
	}
	p := d.begin()
	if !inMessage {
		p.inMessage, p.binary, p.compressed = true, h.op == wire.OpBinary, h.rsv == wire.RSV1
		p.fragments, p.announced = 1, int(h.payload)
	}
	if !d.skims {
		p.message = append(p.message, piece...)
	}
	p.inFrame, p.frame, p.got = !whole, *h, got+n
	if !whole || !h.final {
		return found{}, rest, nil
	}
	d.part = nil
	f, err := d.message(p.binary, p.compressed, p.message)
	return f, rest, err
}

func (d *decoder) controlPayload(h *header, piece []byte, got int, whole bool, rest []byte) (found, []byte, *Cause) {
	data := piece
	begun := d.part != nil && d.part.inFrame // if only its header
	if begun || !whole {
		p := d.begin()
		p.controlLen = got + copy(p.control[got:], piece)
		p.inFrame, p.frame, p.got = !whole, *h, p.controlLen
		if !whole {
			return found{}, rest, nil
		}
		data = p.control[:p.controlLen]
	}
	d.settle()
	switch h.op {
	case wire.OpPing:
		return found{event: eventPing, data: data}, rest, nil
	case wire.OpPong:
		return found{event: eventPong, data: data}, rest, nil
	}
	f, err := closeFrame(data)
	return f, rest, err
}

// closeFrame takes in the payload of a close frame (RFC 6455, sections 5.5.1, 7.4).
func closeFrame(data []byte) (found, *Cause) {
	f := found{event: eventClose, code: wire.CloseNoStatus}
	if len(data) == 0 {
		return f, nil
	}
	if len(data) == 1 {
		return found{}, Violation
	}
	f.code = wire.CloseCode(binary.BigEndian.Uint16(data))
	if !mayBeSent(f.code) {
		return found{}, Violation
	}
	if !utf8.Valid(data[2:]) {
		return found{}, InvalidText
	}
	return f, nil
}

// mayBeSent reports whether a close frame may have a code (RFC 6455, section 7.4,
// and the IANA registry it founded).
func mayBeSent(code wire.CloseCode) bool {
	switch {
	case code >= 3000:
		return code < 5000
	case code >= 1007:
		return code <= 1014
	}
	return code >= 1000 && code <= 1003
}

// message returns a message that has come as a whole.
func (d *decoder) message(binary, compressed bool, data []byte) (found, *Cause) {
	if d.skims {
		return found{event: eventMessage, binary: binary}, nil
	}
	if compressed {
		var err *Cause
		if data, err = inflate(data, d.limit); err != nil {
			return found{}, err
		}
	}
	if !binary && !utf8.Valid(data) {
		return found{}, InvalidText
	}
	return found{event: eventMessage, binary: binary, data: data}, nil
}
