package wire

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// Opcode is the opcode of a WebSocket frame (RFC 6455, section 5.2).
type Opcode byte

// The opcodes that the server sends.
const (
	OpText   Opcode = 0x1
	OpBinary Opcode = 0x2
	OpClose  Opcode = 0x8
	OpPing   Opcode = 0x9
	OpPong   Opcode = 0xA
)

const finBit = 0x80

// AppendHeader appends the header of an unmasked frame with n bytes of payload.
func AppendHeader(b []byte, op Opcode, n int) []byte {
	b = append(b, finBit|byte(op))
	switch {
	case n < 126:
		return append(b, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
}

// headerRoom is the longest header of an unmasked frame.
const headerRoom = 10

// Frame returns a frame whose payload, of about size bytes, build appends to
// what it is given.
func Frame(op Opcode, size int, build func([]byte) []byte) []byte {
	return seal(op, build(make([]byte, headerRoom, headerRoom+size)))
}

// seal writes the header into the room in front of a payload.
func seal(op Opcode, b []byte) []byte {
	var room [headerRoom]byte
	header := AppendHeader(room[:0], op, len(b)-headerRoom)
	frame := b[headerRoom-len(header):]
	copy(frame, header)
	return frame
}

// Close returns a close frame. The reason is cut to what fits.
func Close(code CloseCode, reason string) []byte {
	const maxReason = 123
	for len(reason) > maxReason || !utf8.ValidString(reason) {
		reason = reason[:min(maxReason, len(reason)-1)]
	}
	b := AppendHeader(nil, OpClose, 2+len(reason))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return append(b, reason...)
}

// FrameEnd returns where the frame ends that covers byte pos of a run of whole
// unmasked frames; pos itself if a frame begins there.
func FrameEnd(frames []byte, pos int) int {
	end := 0
	for end < pos {
		end += frameLen(frames[end:])
	}
	return end
}

// frameLen returns the length of the frame that frame begins with.
func frameLen(frame []byte) int {
	header := 2
	switch frame[1] {
	case 126:
		header = 4
	case 127:
		header = 10
	}
	return header + payloadLen(frame)
}

func payloadLen(frame []byte) int {
	switch n := int(frame[1]); n {
	case 126:
		return int(binary.BigEndian.Uint16(frame[2:]))
	case 127:
		return int(binary.BigEndian.Uint64(frame[2:]))
	default:
		return n
	}
}

// AppendString appends s as a JSON string.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// Object builds one JSON object, field by field.
type Object struct{ buf []byte }

// NewObject begins an object of a type, which answers ref if there is one.
func NewObject(kind string, ref Ref) *Object {
	o := &Object{buf: make([]byte, headerRoom, 192)}
	o.buf = append(o.buf, `{"type":"`...)
	o.buf = append(o.buf, kind...)
	o.buf = append(o.buf, '"')
	if ref != "" {
		o.Raw("ref", string(ref))
	}
	return o
}

// Str adds a string.
func (o *Object) Str(name, value string) *Object {
	o.name(name)
	o.buf = AppendString(o.buf, value)
	return o
}

// Int adds an integer.
func (o *Object) Int(name string, value int64) *Object {
	o.name(name)
	o.buf = strconv.AppendInt(o.buf, value, 10)
	return o
}

// Bool adds true or false.
func (o *Object) Bool(name string, value bool) *Object {
	o.name(name)
	o.buf = strconv.AppendBool(o.buf, value)
	return o
}

// Raw adds a value that is JSON already.
func (o *Object) Raw(name, json string) *Object {
	o.name(name)
	o.buf = append(o.buf, json...)
	return o
}

// Object adds an object, to which build adds the fields.
func (o *Object) Object(name string, build func(*Object)) *Object {
	o.name(name)
	o.buf = append(o.buf, '{')
	build(o)
	o.buf = append(o.buf, '}')
	return o
}

func (o *Object) name(name string) {
	if o.buf[len(o.buf)-1] != '{' {
		o.buf = append(o.buf, ',')
	}
	o.buf = AppendString(o.buf, name)
	o.buf = append(o.buf, ':')
}

// Frame ends the object and returns it as a text frame.
func (o *Object) Frame() []byte {
	return seal(OpText, append(o.buf, '}'))
}

// AppendBase64 appends data as a JSON string in base64 (RFC 4648, section 4).
func AppendBase64(b, data []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, '"')
}
