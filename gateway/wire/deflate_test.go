package wire

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// inflate undoes Deflate as a peer does (RFC 7692, section 7.2.2).
func inflate(t *testing.T, frame []byte) (Opcode, string) {
	t.Helper()
	if n := frameLen(frame); n != len(frame) {
		t.Fatalf("the frame says %d bytes, and has %d", n, len(frame))
	}
	payload := frame[len(frame)-payloadLen(frame):]
	if frame[0]&RSV1 != 0 {
		r := flate.NewReader(io.MultiReader(bytes.NewReader(payload), bytes.NewReader(syncMarker), bytes.NewReader([]byte{1, 0, 0, 0xff, 0xff})))
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		payload = b
	}
	return Opcode(frame[0] & 0x0F), string(payload)
}

func TestDeflate(t *testing.T) {
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for _, test := range []struct {
		payload string
		shrinks bool
	}{
		{"", false},
		{"short", false},
		{strings.Repeat("a", deflateLeast-5), false},
		{strings.Repeat("a", deflateLeast), true},
		{strings.Repeat("ab ", 100), true},
		{strings.Repeat("a longer text, ", 10_000), true},
		{string(noise[:1000]), false},
		{string(noise), false},
	} {
		payload := test.payload
		for _, op := range []Opcode{OpText, OpBinary} {
			frame := append(AppendHeader(nil, op, len(payload)), payload...)
			got := Deflate(frame)
			if len(got) > len(frame) {
				t.Errorf("%d bytes grew to %d", len(frame), len(got))
			}
			if gotOp, s := inflate(t, got); gotOp != op || s != payload {
				t.Errorf("%d bytes of opcode %d became %d of %d", len(payload), op, len(s), gotOp)
			}
			if compressed := got[0]&RSV1 != 0; compressed != test.shrinks {
				t.Errorf("%d bytes, compressed: %v", len(payload), compressed)
			}
		}
	}
}
