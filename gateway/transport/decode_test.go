package transport

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

const (
	fin  = 0x80
	rsv1 = wire.RSV1
)

// feed decodes pieces, each of them in memory that is overwritten afterwards, and
// returns what is found up to the end.
func feed(d *decoder, pieces ...[]byte) (events []string, why *Cause) {
	for _, piece := range pieces {
		b := slices.Clone(piece)
		for rest := b; len(rest) > 0; {
			f, after, why := d.next(rest)
			if why != nil {
				return events, why
			}
			if f.event != eventNone {
				events = append(events, describe(f))
			}
			if f.event == eventClose {
				return events, nil
			}
			rest = after
		}
		for i := range b {
			b[i] = 0xAA
		}
	}
	return events, nil
}

// describe returns what was found as a string.
func describe(f found) string {
	switch f.event {
	case eventPing:
		return "ping " + string(f.data)
	case eventPong:
		return "pong " + string(f.data)
	case eventClose:
		return fmt.Sprint("close ", f.code)
	}
	if f.binary {
		return "binary " + string(f.data)
	}
	return "text " + string(f.data)
}

// announce returns the header of a masked frame of so many bytes, the length in so
// many bytes (1, 2 or 8).
func announce(first byte, size uint64, in int) []byte {
	b := []byte{first, 0x80}
	switch in {
	case 1:
		b[1] |= byte(size)
	case 2:
		b[1] |= 126
		b = binary.BigEndian.AppendUint16(b, uint16(size))
	case 8:
		b[1] |= 127
		b = binary.BigEndian.AppendUint64(b, size)
	}
	return append(b, 9, 8, 7, 6)
}

// deflated returns what a message is compressed to: without the marker at the end.
func deflated(message string) string {
	return strings.TrimSuffix(compress(message, (*flate.Writer).Flush), "\x00\x00\xff\xff")
}

// final returns what a message is compressed to by a final block (RFC 7692, section
// 7.2.3.4).
func final(message string) string { return compress(message, (*flate.Writer).Close) + "\x00" }

func compress(message string, end func(*flate.Writer) error) string {
	var out bytes.Buffer
	w := compressors.Get().(*flate.Writer)
	defer compressors.Put(w)
	w.Reset(&out)
	_, _ = io.WriteString(w, message)
	_ = end(w)
	return out.String()
}

// compressors are what a fuzzer would spend its time on making.
var compressors = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestCompression)
	return w
}}

// manyFrames returns a stream of frames of all forms, one of them of so many bytes, and
// what is in it.
func manyFrames(size int) (stream []byte, want []string) {
	add := func(frame []byte, events ...string) {
		stream, want = append(stream, frame...), append(want, events...)
	}
	const text = byte(wire.OpText)
	long, longer := strings.Repeat("long", 50), strings.Repeat("x", size)
	add(wiretest.ClientFrame(wire.OpText, "hello"), "text hello")
	add(wiretest.ClientFrame(wire.OpText, ""), "text ")
	add(wiretest.ClientFrame(wire.OpPing, ""), "ping ")
	add(wiretest.Masked(text, "begun"))
	add(wiretest.ClientFrame(wire.OpPing, long[:125]), "ping "+long[:125])
	add(wiretest.Masked(0, ""))
	add(wiretest.ClientFrame(wire.OpPong, "between"), "pong between")
	add(wiretest.Masked(fin, ", ended"), "text begun, ended")
	add(wiretest.Masked(text, "caf\xc3"))
	add(wiretest.Masked(fin, "\xa9"), "text café")
	add(wiretest.Masked(text, ""))
	add(wiretest.Masked(fin, ""), "text ")
	add(wiretest.ClientFrame(wire.OpBinary, long), "binary "+long)
	add(wiretest.Masked(fin|rsv1|text, deflated(long)), "text "+long)
	add(wiretest.Masked(rsv1|byte(wire.OpBinary), deflated(long)[:3]))
	add(wiretest.ClientFrame(wire.OpPong, ""), "pong ")
	add(wiretest.Masked(fin, deflated(long)[3:]), "binary "+long)
	add(wiretest.Masked(byte(wire.OpBinary), longer))
	add(wiretest.Masked(fin, "end"), "binary "+longer+"end")
	add(wiretest.ClientFrame(wire.OpClose, "\x03\xe8bye"), "close 1000")
	return stream, want
}

func checkEvents(t *testing.T, got, want []string, why *Cause) {
	t.Helper()
	if why != nil {
		t.Fatalf("ended as %v after %d events", why, len(got))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("event %d: got %.80q, want %.80q", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("got %d events, want %d", len(got), len(want))
	}
}

// TestDecoderTakesAnyPieces cuts a stream at every byte, into single bytes, and at
// random.
func TestDecoderTakesAnyPieces(t *testing.T) {
	stream, want := manyFrames(66_000)
	decode := func(pieces ...[]byte) {
		d := decoder{limit: 70_000, compresses: true}
		got, why := feed(&d, pieces...)
		checkEvents(t, got, want, why)
		if !d.idle() || d.size() != 0 {
			t.Fatalf("%d bytes are kept", d.size())
		}
	}
	decode(stream)
	var single [][]byte
	for i := range stream {
		single = append(single, stream[i:i+1])
	}
	decode(single...)
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var pieces [][]byte
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(1<<random.IntN(14)))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		decode(pieces...)
	}
	stream, want = manyFrames(300)
	for i := range stream {
		decode(stream[:i], stream[i:])
	}
}

// TestControlFrameCutBehindItsHeader: a header that has come alone is that of the next
// bytes, once.
func TestControlFrameCutBehindItsHeader(t *testing.T) {
	for name, begun := range map[string][]byte{"alone": nil, "in a message": wiretest.Masked(byte(wire.OpText), "begun")} {
		d := decoder{limit: 1000}
		ping, end := wiretest.ClientFrame(wire.OpPing, "ping"), wiretest.ClientFrame(wire.OpText, "text")
		want := []string{"ping ping", "text text"}
		if begun != nil {
			end, want[1] = wiretest.Masked(fin, "ended"), "text begunended"
		}
		head := len(ping) - len("ping")
		events, why := feed(&d, begun, ping[:head], ping[head:], end)
		if checkEvents(t, events, want, why); !d.idle() {
			t.Errorf("%s: something is kept", name)
		}
	}
}

// TestHeadersCutAtEveryByte: what a frame announces counts no earlier and no later
// than with the last byte of its header.
func TestHeadersCutAtEveryByte(t *testing.T) {
	for _, in := range []int{1, 2, 8} {
		for _, first := range []byte{fin | byte(wire.OpText), fin | byte(wire.OpPing), fin | rsv1 | byte(wire.OpText), 0x83} {
			for _, size := range []uint64{0, 125, 126, 1000, 65_535, 65_536, 1 << 40} {
				if in == 1 && size > 125 || in == 2 && size > 65_535 {
					continue
				}
				head := announce(first, size, in)
				_, want := feed(&decoder{limit: 1000}, head)
				for cut := range head {
					d := decoder{limit: 1000}
					events, why := feed(&d, head[:cut])
					if why != nil || events != nil {
						t.Errorf("%x: %q, %v after %d bytes of it", head, events, why, cut)
					}
					if kept := d.size(); cut == 0 && kept != 0 || kept > partialSize {
						t.Errorf("%x: %d bytes are kept after %d of it", head, kept, cut)
					}
					if _, why := feed(&d, head[cut:]); why != want {
						t.Errorf("%x cut at %d: %v, want %v", head, cut, why, want)
					}
				}
			}
		}
	}
}

// TestDecoderRefuses what RFC 6455 and RFC 7692 forbid: at once, whatever follows.
func TestDecoderRefuses(t *testing.T) {
	begun := wiretest.Masked(byte(wire.OpText), "begun")
	compressed := wiretest.Masked(rsv1|byte(wire.OpText), deflated("begun"))
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	for name, refused := range map[string]struct {
		bytes []byte
		why   *Cause
	}{
		"no mask":                          {wiretest.ServerFrame(wire.OpText, "x"), Violation},
		"a ping without a mask":            {wiretest.ServerFrame(wire.OpPing, ""), Violation},
		"RSV1":                             {wiretest.Masked(fin|rsv1|byte(wire.OpText), "x"), Violation},
		"RSV2":                             {wiretest.Masked(0xA1, "x"), Violation},
		"RSV3":                             {wiretest.Masked(0x91, "x"), Violation},
		"length 125 in two bytes":          {announce(0x82, 125, 2), Violation},
		"length 0 in two bytes":            {announce(0x82, 0, 2), Violation},
		"length 65535 in eight bytes":      {announce(0x82, 65_535, 8), Violation},
		"length 5 in eight bytes":          {announce(0x82, 5, 8), Violation},
		"a ping of 5 in two bytes":         {announce(0x89, 5, 2), Violation},
		"a length with the top bit":        {announce(0x82, 1<<63, 8), Violation},
		"a length of all bits":             {announce(0x82, 1<<64-1, 8), Violation},
		"the largest length":               {announce(0x82, 1<<63-1, 8), TooBig},
		"a byte more than the limit":       {announce(0x82, 1001, 2), TooBig},
		"the same as a fragment":           {announce(0x02, 1001, 2), TooBig},
		"continuation of nothing":          {wiretest.Masked(fin, "x"), Violation},
		"unfinished continuation":          {wiretest.Masked(0, "x"), Violation},
		"a message in a message":           {join(begun, wiretest.ClientFrame(wire.OpText, "x")), Violation},
		"a fragment in a message":          {join(begun, wiretest.Masked(byte(wire.OpBinary), "x")), Violation},
		"too much in fragments":            {join(begun, announce(0x00, 996, 2)), TooBig},
		"far too much in fragments":        {join(begun, announce(0x00, 1<<63-1, 8)), TooBig},
		"a fragmented ping":                {wiretest.Masked(byte(wire.OpPing), "x"), Violation},
		"a fragmented close":               {wiretest.Masked(byte(wire.OpClose), ""), Violation},
		"a ping of 126 bytes":              {announce(0x89, 126, 2), Violation},
		"a close of 65536 bytes":           {announce(0x88, 65_536, 8), Violation},
		"a close of one byte":              {wiretest.ClientFrame(wire.OpClose, "\x03"), Violation},
		"a close reason that is not UTF-8": {wiretest.ClientFrame(wire.OpClose, "\x03\xe8\xff"), InvalidText},
		"a close reason cut inside a rune": {wiretest.ClientFrame(wire.OpClose, "\x03\xe8caf\xc3"), InvalidText},
		"text that is not UTF-8":           {wiretest.ClientFrame(wire.OpText, "\xed\xa0\x80"), InvalidText},
		"text cut inside a rune":           {join(begun, wiretest.Masked(fin, "\xf0\x9f\x98")), InvalidText},
		"compressed and not UTF-8":         {wiretest.Masked(fin|rsv1|byte(wire.OpText), deflated("\xff")), InvalidText},
		"a compressed continuation":        {join(compressed, wiretest.Masked(fin|rsv1, "")), Violation},
		"a compressed end of a plain one":  {join(begun, wiretest.Masked(fin|rsv1, "")), Violation},
		"a compressed ping":                {wiretest.Masked(fin|rsv1|byte(wire.OpPing), ""), Violation},
		"a compressed close":               {wiretest.Masked(fin|rsv1|byte(wire.OpClose), ""), Violation},
		"RSV1 and RSV2":                    {wiretest.Masked(fin|rsv1|0x20|byte(wire.OpText), deflated("x")), Violation},
	} {
		compresses := name != "RSV1"
		d := decoder{limit: 1000, compresses: compresses}
		if events, why := feed(&d, refused.bytes); why != refused.why || events != nil {
			t.Errorf("%s: %q, %v, want %v", name, events, why, refused.why)
		}
	}
	for op := range byte(16) {
		_, why := feed(&decoder{limit: 1000}, wiretest.Masked(fin|op, ""))
		if reserved := op&7 > 2; reserved != (why == Violation) && op != 0 {
			t.Errorf("opcode %d: %v", op, why)
		}
	}
}

// TestCloseCodes tells the codes that may be sent from all others.
func TestCloseCodes(t *testing.T) {
	legal := map[int]bool{1000: true, 1001: true, 1002: true, 1003: true, 1007: true, 1008: true, 1009: true,
		1010: true, 1011: true, 1012: true, 1013: true, 1014: true}
	for code := range 1 << 16 {
		payload := string(binary.BigEndian.AppendUint16(nil, uint16(code)))
		events, why := feed(&decoder{}, wiretest.ClientFrame(wire.OpClose, payload))
		if legal[code] || code >= 3000 && code <= 4999 {
			if why != nil || !slices.Equal(events, []string{fmt.Sprint("close ", code)}) {
				t.Errorf("%d: %q, %v", code, events, why)
			}
		} else if why != Violation || events != nil {
			t.Errorf("%d: %q, %v", code, events, why)
		}
	}
}

// TestFragmentsAreBounded: empty ones too, which no bound on bytes ends (finding M1).
func TestFragmentsAreBounded(t *testing.T) {
	for name, first := range map[string]byte{"plain": byte(wire.OpText), "compressed": rsv1 | byte(wire.OpText)} {
		d := decoder{limit: 1000, compresses: true}
		frames := [][]byte{wiretest.Masked(first, "")}
		for range maxFragments - 2 {
			frames = append(frames, wiretest.Masked(0, ""), wiretest.ClientFrame(wire.OpPong, ""))
		}
		events, why := feed(&d, frames...)
		if why != nil || len(events) != maxFragments-2 {
			t.Fatalf("%s: %d events, %v", name, len(events), why)
		}
		if size := d.size(); size > partialSize {
			t.Errorf("%s: %d bytes are kept of nothing", name, size)
		}
		more := d
		part := *d.part
		more.part = &part
		events, why = feed(&d, wiretest.Masked(fin, ""))
		checkEvents(t, events, []string{"text "}, why)
		events, why = feed(&more, wiretest.Masked(0, ""), wiretest.Masked(fin, ""))
		if why != Flood || events != nil {
			t.Errorf("%s: one more: %q, %v", name, events, why)
		}
	}
}

// TestHalfMessageTakesWhatHasCome: not what its header announces.
func TestHalfMessageTakesWhatHasCome(t *testing.T) {
	if size := unsafe.Sizeof(partial{}); size > partialSize {
		t.Errorf("a partial takes %d bytes", size)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int{1, 100, 4096} {
		d := decoder{limit: 1 << 20}
		if _, why := feed(&d, announce(0x02, 1<<20, 8)); why != nil || d.size() > partialSize {
			t.Fatalf("%d bytes are kept of a header, %v", d.size(), why)
		}
		came := 0
		for came < 1<<19 {
			n := 1 + random.IntN(most)
			if _, why := feed(&d, make([]byte, n)); why != nil {
				t.Fatal(why)
			}
			if came += n; d.size() > partialSize+2*came+16 {
				t.Fatalf("%d bytes are kept of %d", d.size(), came)
			}
		}
	}
}

// TestDataIsAPieceOfItsOwn: who appends to it does not write into what came behind.
func TestDataIsAPieceOfItsOwn(t *testing.T) {
	d := decoder{limit: 1000}
	b := append(wiretest.ClientFrame(wire.OpText, "one"), wiretest.ClientFrame(wire.OpPing, "two")...)
	b = append(b, wiretest.ClientFrame(wire.OpText, "three")...)
	var got []string
	for len(b) > 0 {
		f, rest, why := d.next(b)
		if why != nil {
			t.Fatal(why)
		}
		got = append(got, describe(f))
		_ = append(f.data, "more and more"...)
		b = rest
	}
	checkEvents(t, got, []string{"text one", "ping two", "text three"}, nil)
}

// TestUnmask compares with the definition, at every offset.
func TestUnmask(t *testing.T) {
	key := [4]byte{0x11, 0x22, 0x33, 0x44}
	for size := range 40 {
		for at := range 9 {
			b, want := make([]byte, size), make([]byte, size)
			for i := range b {
				b[i] = byte(i * 7)
				want[i] = b[i] ^ key[(at+i)%4]
			}
			if unmask(b, key, at); !bytes.Equal(b, want) {
				t.Fatalf("%d bytes at %d: %x, want %x", size, at, b, want)
			}
		}
	}
}
