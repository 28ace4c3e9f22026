package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// payloadOf returns the payload of one unmasked frame.
func payloadOf(frame []byte) []byte {
	switch frame[1] {
	case 126:
		return frame[4:]
	case 127:
		return frame[10:]
	}
	return frame[2:]
}

func TestFrameHeaders(t *testing.T) {
	for size, header := range map[int]string{
		0: "\x81\x00", 1: "\x81\x01", 125: "\x81\x7d", 126: "\x81\x7e\x00\x7e", 65535: "\x81\x7e\xff\xff",
		65536: "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
	} {
		payload := bytes.Repeat([]byte("x"), size)
		got := Frame(OpText, size, func(b []byte) []byte { return append(b, payload...) })
		if string(got) != header+string(payload) {
			t.Errorf("%d bytes: header %x", size, got[:min(10, len(got))])
		}
		// Whatever was guessed of the size.
		if wrong := Frame(OpText, 7, func(b []byte) []byte { return append(b, payload...) }); !bytes.Equal(wrong, got) {
			t.Errorf("%d bytes: another frame", size)
		}
	}
}

func TestCloseFrames(t *testing.T) {
	for _, reason := range []string{"", "going", strings.Repeat("r", 123), strings.Repeat("r", 124), strings.Repeat("é", 100), strings.Repeat("😀", 40) + "x", "\xff\xfe"} {
		frame := Close(CloseSlow, reason)
		payload := frame[2:]
		if frame[0] != 0x88 || int(frame[1]) != len(payload) || len(payload) > 125 || binary.BigEndian.Uint16(payload) != 4008 {
			t.Errorf("%q: frame %x", reason, frame)
		}
		got := string(payload[2:])
		if !utf8.ValidString(got) || !strings.HasPrefix(reason, got) || utf8.ValidString(reason) && len(reason) <= 123 && got != reason {
			t.Errorf("%q became %q", reason, got)
		}
	}
}

func TestObject(t *testing.T) {
	frame := NewObject("connected", `"r"`).Str("user", "a\"\u2028<é>\x00").Int("ping", -30).Bool("resumed", true).
		Object("none", func(*Object) {}).
		Object("channels", func(o *Object) {
			for _, name := range []string{"a", `b"{`} {
				o.Object(name, func(o *Object) { o.Str("last", "{").Bool("recovered", false) })
			}
		}).Raw("messages", `[{}]`).Frame()
	var got map[string]any
	if err := json.Unmarshal(payloadOf(frame), &got); err != nil {
		t.Fatalf("%q: %v", frame, err)
	}
	again, _ := json.Marshal(got)
	const want = `{"channels":{"a":{"last":"{","recovered":false},"b\"{":{"last":"{","recovered":false}},"messages":[{}],"none":{},"ping":-30,"ref":"r","resumed":true,"type":"connected","user":"a\"\u2028\u003cé\u003e\u0000"}`
	if string(again) != want {
		t.Errorf("got %s", again)
	}
}

func TestAppendString(t *testing.T) {
	for _, s := range []string{"", "plain", `"\`, "\x00\x1f\x7f", "é😀\u2028", "a\xffb", "<&>"} {
		var got string
		b := AppendString([]byte("x"), s)
		if err := json.Unmarshal(b[1:], &got); err != nil || got != strings.ToValidUTF8(s, "\ufffd") {
			t.Errorf("%q became %s, %v", s, b, err)
		}
		if bytes.ContainsAny(b, "\n") {
			t.Errorf("%q: a line feed", s)
		}
	}
}

// FuzzFrame builds runs of frames of the sizes that the input says, and looks for
// their ends.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 1, 125, 126, 127, 255}, uint16(3))
	f.Add([]byte{255, 255, 255, 255}, uint16(65535))
	f.Fuzz(func(t *testing.T, sizes []byte, at uint16) {
		var frames []byte
		ends := []int{0}
		for _, size := range sizes[:min(len(sizes), 16)] {
			n := int(size) * int(size) * 2 // up to all three forms of a header
			frame := Frame(OpBinary, int(size), func(b []byte) []byte { return append(b, bytes.Repeat(sizes[:1], n)...) })
			if len(payloadOf(frame)) != n {
				t.Fatalf("%d bytes: payload of %d", n, len(payloadOf(frame)))
			}
			frames = append(frames, frame...)
			ends = append(ends, len(frames))
		}
		pos := int(at) % (len(frames) + 1)
		got := FrameEnd(frames, pos)
		for i, end := range ends {
			if end >= pos {
				if got != end {
					t.Errorf("the frame at %d ends at %d (the %dth), got %d", pos, end, i, got)
				}
				break
			}
		}
	})
}
