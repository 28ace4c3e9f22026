package transport

import (
	"encoding/binary"

	"wssgateway/gateway/wire"
)

const (
	maxHeader  = 14  // bytes of a client's frame header, at the most
	maxControl = 125 // bytes of a control frame's payload, at the most

	opContinuation wire.Opcode = 0x0
)

// header is the header of a frame from a client (RFC 6455, section 5.2).
type header struct {
	op       wire.Opcode
	final    bool
	rsv      byte // the reserved bits, as in the first byte
	masked   bool
	minimal  bool // the length is in the fewest bytes
	size     int  // of the header, in bytes
	payload  uint64
	key      [4]byte
	reserved bool // the opcode is
}

func (h *header) control() bool { return h.op&0x8 != 0 }

// headerSize returns how long the header is that b begins, as far as its first two
// bytes tell; without them 2.
func headerSize(b []byte) int {
	size := 2
	if len(b) < size {
		return size
	}
	switch b[1] & 0x7F {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if b[1]&0x80 != 0 {
		size += 4
	}
	return size
}

// parseHeader parses a whole header.
func parseHeader(b []byte) header {
	h := header{
		op:      wire.Opcode(b[0] & 0x0F),
		final:   b[0]&0x80 != 0,
		rsv:     b[0] & 0x70,
		masked:  b[1]&0x80 != 0,
		minimal: true,
		size:    headerSize(b),
		payload: uint64(b[1] & 0x7F),
	}
	h.reserved = h.op&0x7 > 2
	switch h.payload {
	case 126:
		h.payload = uint64(binary.BigEndian.Uint16(b[2:]))
		h.minimal = h.payload >= 126
	case 127:
		h.payload = binary.BigEndian.Uint64(b[2:])
		h.minimal = h.payload > 0xFFFF
	}
	if h.masked {
		copy(h.key[:], b[h.size-4:h.size])
	}
	return h
}

// unmask reverses the masking of a part of a payload that begins at offset at
// (RFC 6455, section 5.3).
func unmask(b []byte, key [4]byte, at int) {
	if len(b) == 0 {
		return
	}
	var turned [8]byte
	for i := range turned {
		turned[i] = key[(at+i)%4]
	}
	word := binary.LittleEndian.Uint64(turned[:])
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^word)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= turned[i]
	}
}
