package attack

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
)

// First bytes of frames (RFC 6455, section 5.2).
const (
	fin  = 0x80
	rsv1 = 0x40 // compressed (RFC 7692)

	continuation = 0x0
	text         = 0x1
	binaryData   = 0x2
	ping         = 0x9
)

const (
	maskBit = 0x80
	// noMask is the key of all masks here: it leaves the payload as it is.
	noMask = "\x00\x00\x00\x00"
)

// frame returns a frame as clients send it.
func frame(first byte, payload []byte) []byte {
	return append(header(first, uint64(len(payload))), payload...)
}

// header returns the header of a frame that announces n bytes.
func header(first byte, n uint64) []byte {
	b := []byte{first}
	switch {
	case n < 126:
		b = append(b, maskBit|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), n)
	}
	return append(b, noMask...)
}

// message returns a text message in one frame.
func message(s string) []byte { return frame(fin|text, []byte(s)) }

// stored returns a block of deflate that holds b as it is (RFC 1951, section
// 3.2.4). After a final one nothing more is to come.
func stored(final bool, b []byte) []byte {
	var block []byte
	if final {
		block = append(block, 1)
	} else {
		block = append(block, 0)
	}
	block = binary.LittleEndian.AppendUint16(block, uint16(len(b)))
	block = binary.LittleEndian.AppendUint16(block, ^uint16(len(b)))
	return append(block, b...)
}

// syncMarker ends what was flushed; the receiver puts it back (RFC 7692, section
// 7.2.1).
var syncMarker = []byte{0x00, 0x00, 0xff, 0xff}

// deflated returns b compressed, as the payload of a message.
func deflated(b []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		panic(err) // only for a level that there is not
	}
	if _, err := w.Write(b); err != nil {
		panic(err) // into memory
	}
	if err := w.Flush(); err != nil {
		panic(err) // into memory
	}
	return bytes.TrimSuffix(out.Bytes(), syncMarker)
}
