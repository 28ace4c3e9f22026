package wire

import (
	"bytes"
	"compress/flate"
	"sync"
)

const (
	// RSV1 marks a compressed message (RFC 7692, section 6).
	RSV1 = 0x40
	// deflateLeast is below what compressing a frame is not worth it.
	deflateLeast = 256
)

// syncMarker ends what Flush writes; the peer puts it back (RFC 7692, section
// 7.2.1).
var syncMarker = []byte{0x00, 0x00, 0xff, 0xff}

// deflater is a compressor, which takes more than half a megabyte, and what it
// writes to.
type deflater struct {
	w   *flate.Writer
	out bytes.Buffer
}

var deflaters = sync.Pool{New: func() any {
	d := &deflater{}
	d.w, _ = flate.NewWriter(&d.out, flate.BestSpeed) // fails only for a level that there is not
	return d
}}

// Deflate returns a frame of the server as permessage-deflate wants it, without
// context takeover (RFC 7692): so the bytes are the same for every receiver. A
// frame that is short, or would not shrink, is returned as it is.
func Deflate(frame []byte) []byte {
	if len(frame) < deflateLeast {
		return frame
	}
	header := frameLen(frame) - payloadLen(frame)
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	d.out.Reset()
	d.w.Reset(&d.out)
	_, _ = d.w.Write(frame[header:]) // into memory
	_ = d.w.Flush()
	payload := bytes.TrimSuffix(d.out.Bytes(), syncMarker)
	if len(payload)+headerRoom >= len(frame) {
		return frame
	}
	b := AppendHeader(make([]byte, 0, headerRoom+len(payload)), Opcode(frame[0]&0x0F), len(payload))
	b[0] |= RSV1
	return append(b, payload...)
}
