package transport

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// TestInflateForms goes through the forms that RFC 7692 has for the end of a message
// (sections 7.2.3.1 to 7.2.3.6), and what is none (findings C2, A1).
func TestInflateForms(t *testing.T) {
	stored := storedBlock
	forged := stored(0, `{"type":"publish"}`)
	for name, form := range map[string]struct {
		sent, want string
		why        *Cause
	}{
		"one block":                  {sent: "\xf2\x48\xcd\xc9\xc9\x07\x00", want: "Hello"},
		"no compression":             {sent: "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", want: "Hello"},
		"final":                      {sent: "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", want: "Hello"},
		"two blocks":                 {sent: "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", want: "Hello"},
		"empty":                      {sent: "\x00"},
		"empty, by a fixed block":    {sent: "\x02\x00"},
		"no bytes at all":            {},
		"final, without its 0":       {sent: "\xf3\x48\xcd\xc9\xc9\x07\x00", want: "Hello"},
		"stored and final":           {sent: stored(1, "Hello"), want: "Hello"},
		"stored and final, and 0":    {sent: stored(1, "Hello") + "\x00", want: "Hello"},
		"final, and two of 0":        {sent: stored(1, "Hello") + "\x00\x00", why: Violation},
		"final, and another byte":    {sent: stored(1, "Hello") + "\x01", why: Violation},
		"final, and a block":         {sent: stored(1, "Hello") + forged, why: Violation},
		"final, 0, and a block":      {sent: stored(1, "Hello") + "\x00" + forged, why: Violation},
		"final, and a final block":   {sent: stored(1, "Hello") + stored(1, "forged"), why: Violation},
		"cut inside a stored block":  {sent: stored(0, strings.Repeat("Hello", 5))[:12], why: Violation},
		"cut inside a fixed block":   {sent: "\xf2\x48\xcd\xc9", why: Violation},
		"cut inside a header":        {sent: "\x00\x05\x00", why: Violation},
		"a block type that is none":  {sent: "\x06", why: Violation},
		"a stored length that lies":  {sent: "\x00\x05\x00\xfa\xfeHello\x00", why: Violation},
		"a reach behind the message": {sent: "\x02\x02\x00\x00", why: Violation},
	} {
		for range 3 { // with what is in the pool by then
			got, why := inflate([]byte(form.sent), 1000)
			if string(got) != form.want || why != form.why {
				t.Errorf("%s: %q, %v, want %q, %v", name, got, why, form.want, form.why)
			}
		}
	}
}

// storedBlock returns a block without compression.
func storedBlock(final byte, data string) string {
	b := binary.LittleEndian.AppendUint16([]byte{final}, uint16(len(data)))
	return string(binary.LittleEndian.AppendUint16(b, ^uint16(len(data)))) + data
}

// TestInflateIsBounded: by what comes out, and by what is taken for it.
func TestInflateIsBounded(t *testing.T) {
	const limit = 10_000
	for size, want := range map[int]*Cause{limit - 1: nil, limit: nil, limit + 1: TooBig, 100 * limit: TooBig, 9_000_000: TooBig} {
		bomb := deflated(strings.Repeat("\x00", size))
		d := decoder{limit: limit, compresses: true}
		events, why := feed(&d, wiretest.Masked(fin|rsv1|byte(wire.OpBinary), bomb))
		if why != want || (len(events) == 1) != (want == nil) {
			t.Errorf("%d bytes in %d: %v, want %v", size, len(bomb), why, want)
		}
		f := inflaters.Get().(*inflater)
		if cap(f.out) > 2*limit && cap(f.out) > 2*maxOutOfOthers {
			t.Errorf("%d bytes in %d: room for %d is kept", size, len(bomb), cap(f.out))
		}
		if len(f.out) != 0 || f.source.message != nil || f.source.tail != "" {
			t.Errorf("%d bytes in %d: something is kept", size, len(bomb))
		}
		inflaters.Put(f)
	}
}

// maxOutOfOthers is the largest limit of the other tests, which share the pool.
const maxOutOfOthers = 1 << 20

// TestCompressedBytesAreBounded: by what is on the wire, when it inflates to nothing
// (finding M1).
func TestCompressedBytesAreBounded(t *testing.T) {
	const limit = 1000
	nothing := strings.Repeat("\x00\x00\x00\xff\xff", limit/5)
	d := decoder{limit: limit, compresses: true}
	events, why := feed(&d, wiretest.Masked(fin|rsv1|byte(wire.OpText), nothing[:limit-5]+"\x00"))
	checkEvents(t, events, []string{"text "}, why)
	most := limit + deflateSlack(limit)
	_, why = feed(&d, announce(fin|rsv1|byte(wire.OpText), uint64(most+1), 2))
	if why != TooBig {
		t.Errorf("one frame: %v", why)
	}
	d = decoder{limit: limit, compresses: true}
	events, why = feed(&d, wiretest.Masked(rsv1|byte(wire.OpText), nothing), wiretest.ClientFrame(wire.OpPing, "x"), announce(0, uint64(most-limit+1), 1))
	if why != TooBig || len(events) != 1 {
		t.Errorf("in fragments: %q, %v", events, why)
	}
}

// TestWhatDoesNotShrinkMayBeCompressed: a message within the limit is not refused for
// the bytes that storing it takes.
func TestWhatDoesNotShrinkMayBeCompressed(t *testing.T) {
	for _, limit := range []int{1, 100, 1000, 1 << 16, 1 << 18} {
		noise := make([]byte, limit+1)
		random := rand.New(rand.NewPCG(1, 2))
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		stored := "" // in short blocks, as zlib does it with little memory
		for rest := noise[:limit]; len(rest) > 0; {
			n := min(len(rest), 2000)
			stored += storedBlock(0, string(rest[:n]))
			rest = rest[n:]
		}
		for _, sent := range []string{deflated(string(noise[:limit])), stored + "\x00"} {
			d := decoder{limit: limit, compresses: true}
			events, why := feed(&d, fragments(rsv1|byte(wire.OpBinary), sent, 1+len(sent)/3)...)
			checkEvents(t, events, []string{"binary " + string(noise[:limit])}, why)
		}
		d := decoder{limit: limit, compresses: true}
		if _, why := feed(&d, wiretest.Masked(fin|rsv1|byte(wire.OpBinary), deflated(string(noise)))); why != TooBig {
			t.Errorf("%d bytes, of at most %d: %v", limit+1, limit, why)
		}
	}
}

// TestInflaterKeepsNothing of a message, whole or broken, for the next one: neither
// bytes behind its end nor its window (findings C2, A1).
func TestInflaterKeepsNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	secret := strings.Repeat("the secret of alice ", 100)
	var withDict bytes.Buffer // which only an inflater with the window can read
	w, _ := flate.NewWriterDict(&withDict, flate.BestCompression, []byte(secret))
	_, _ = w.Write([]byte(secret))
	_ = w.Flush()
	reaching := bytes.TrimSuffix(withDict.Bytes(), []byte("\x00\x00\xff\xff"))
	whole := deflated(secret)
	for range 100 {
		before := []byte(whole)
		switch random.IntN(3) {
		case 0:
			before = before[:random.IntN(len(before))]
		case 1:
			before[random.IntN(len(before))] ^= byte(1 << random.IntN(8))
		}
		_, _ = inflate(before, 1+random.IntN(4000))
		if got, why := inflate([]byte(reaching), 4000); why != Violation {
			t.Fatalf("%q, %v", got, why)
		}
		if got, why := inflate([]byte(deflated("Hello")), 4000); string(got) != "Hello" || why != nil {
			t.Fatalf("%q, %v", got, why)
		}
	}
}
