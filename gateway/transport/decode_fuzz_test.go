package transport

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/coder/websocket"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// fuzzLimit is how large a message may be: small, so that the fuzzer meets it.
const fuzzLimit = 1500

// FuzzDecodeLikeTheLibrary: what our decoder and the library's find in the same bytes
// is the same: messages, pings, and the close code, or that more is needed.
//
// If scripted, the bytes are no stream but say which frames are in it (see script):
// the fuzzer gets deeper so. The cuts say in which pieces our decoder gets them.
//
// The known differences, each of them intended, are in knownDifference and in
// plainCompressed.
func FuzzDecodeLikeTheLibrary(f *testing.F) {
	stream, _ := manyFrames(fuzzLimit)
	f.Add(stream, true, false, []byte{1, 5, 200, 0})
	for _, seed := range streams() {
		for _, compresses := range []bool{true, false} {
			f.Add(seed, compresses, false, []byte{3, 1, 4, 1, 5, 9})
		}
	}
	for _, seed := range scripts() {
		f.Add(seed, true, true, []byte{1})
		f.Add(seed, false, true, []byte{7, 250})
	}
	f.Fuzz(func(t *testing.T, stream []byte, compresses, scripted bool, cuts []byte) {
		if scripted {
			stream = script(stream, compresses)
		}
		d := &decoder{limit: fuzzLimit, compresses: compresses}
		ours := decodeOurs(t, d, cut(stream, cuts))
		theirs := decodeTheirs(t, stream, compresses)
		compare(t, stream, d, ours, theirs)
	})
}

// decoded is what a decoder has found in a stream.
type decoded struct {
	messages []string // "text …" or "binary …"
	pings    []string
	code     wire.CloseCode // of the close frame that answers; 0 if there is none
	why      *Cause         // ours, unless nil
	failed   bool           // theirs: for another reason than the end of the stream
}

// cut cuts a stream into pieces, whose lengths repeat; the rest of a long one is one.
func cut(stream, lengths []byte) (pieces [][]byte) {
	const most = 200
	for i := 0; len(stream) > 0; i++ {
		n := len(stream)
		if len(lengths) > 0 && i < most {
			n = min(n, 1+int(lengths[i%len(lengths)]))
		}
		pieces, stream = append(pieces, stream[:n]), stream[n:]
	}
	return pieces
}

// decodeOurs also decodes the stream as a whole: where it is cut must not matter.
func decodeOurs(t *testing.T, d *decoder, pieces [][]byte) (found decoded) {
	events, why := feed(d, pieces...)
	whole := &decoder{limit: d.limit, compresses: d.compresses}
	again, whyAgain := feed(whole, bytes.Join(pieces, nil))
	if !slices.Equal(again, events) || why != whyAgain {
		t.Fatalf("in pieces %.300q, %v; as a whole %.300q, %v", events, why, again, whyAgain)
	}
	if why == nil && (d.idle() != whole.idle() || d.size() > partialSize+2*len(bytes.Join(pieces, nil))+16) {
		t.Fatalf("kept in pieces %d bytes, as a whole %d", d.size(), whole.size())
	}
	for _, event := range events {
		kind, data, _ := strings.Cut(event, " ")
		switch kind {
		case "text", "binary":
			found.messages = append(found.messages, event)
		case "ping":
			found.pings = append(found.pings, data)
		case "close":
			found.code = causeCode(data)
		}
	}
	if found.why = why; why != nil {
		found.code = why.Code
	}
	return found
}

func causeCode(decimal string) (code wire.CloseCode) {
	for _, digit := range []byte(decimal) {
		code = code*10 + wire.CloseCode(digit-'0')
	}
	return code
}

// recorded is a net.Conn that yields a stream and then its end, and keeps what is
// written.
type recorded struct {
	unplugged
	in  *bytes.Reader
	out bytes.Buffer
}

func (r *recorded) Read(p []byte) (int, error)  { return r.in.Read(p) }
func (r *recorded) Write(p []byte) (int, error) { return r.out.Write(p) }

// recorder is an http.ResponseWriter from which a recorded is hijacked.
type recorder struct {
	httptest.ResponseRecorder
	nc *recorded
}

func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return r.nc, bufio.NewReadWriter(bufio.NewReaderSize(r.nc, 512), bufio.NewWriterSize(r.nc, 512)), nil
}

// handshake is a request that opens a WebSocket.
func handshake(extensions string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://gateway/ws", nil)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Extensions": extensions,
	} {
		r.Header.Set(name, value)
	}
	return r
}

func decodeTheirs(t *testing.T, stream []byte, compresses bool) (found decoded) {
	w := &recorder{nc: &recorded{in: bytes.NewReader(slices.Clone(stream))}}
	r, o := handshake(""), &websocket.AcceptOptions{}
	if compresses {
		r, o.CompressionMode = handshake("permessage-deflate"), websocket.CompressionNoContextTakeover
	}
	ws, err := websocket.Accept(w, r, o)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(fuzzLimit)
	for {
		kind, data, err := ws.Read(context.Background())
		if err != nil {
			found.failed = !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
			break
		}
		if kind == websocket.MessageText {
			found.messages = append(found.messages, "text "+string(data))
		} else {
			found.messages = append(found.messages, "binary "+string(data))
		}
	}
	for _, frame := range wiretest.ReadFrames(t, &w.nc.out, -1) {
		switch payload := frame[2:]; wire.Opcode(frame[0] & 0xF) {
		case wire.OpPong:
			found.pings = append(found.pings, string(payload))
		case wire.OpClose:
			if found.code = wire.CloseNoStatus; len(payload) >= 2 {
				found.code = wire.CloseCode(binary.BigEndian.Uint16(payload))
			}
		}
	}
	return found
}

// compare fails unless both have found the same, or the difference is known.
func compare(t *testing.T, stream []byte, d *decoder, ours, theirs decoded) {
	t.Helper()
	m := survey(stream, d.compresses)
	if n := m.plainCompressed(); n < len(m.messages) {
		// From here on the library does as it likes with this message and what follows.
		n = min(n, len(ours.messages), len(theirs.messages))
		if !slices.Equal(ours.messages[:n], theirs.messages[:n]) {
			t.Fatalf("of the first %d messages: ours %.300q\ntheirs %.300q", n, ours.messages, theirs.messages)
		}
		return
	}
	if knownDifference(m, d, ours, theirs) {
		if !startsWith(theirs.messages, ours.messages) || !startsWith(theirs.pings, ours.pings) {
			t.Fatalf("in what was before: ours %.300q %.300q\ntheirs %.300q %.300q", ours.messages, ours.pings, theirs.messages, theirs.pings)
		}
		return
	}
	if !slices.Equal(ours.messages, theirs.messages) || !slices.Equal(ours.pings, theirs.pings) {
		t.Fatalf("ours %.300q %.300q, %v\ntheirs %.300q %.300q, %d", ours.messages, ours.pings, ours.why, theirs.messages, theirs.pings, theirs.code)
	}
	if ours.code != theirs.code || (ours.code != 0) != theirs.failed {
		t.Fatalf("ours ended as %v, close code %d; theirs: close code %d, failed %v", ours.why, ours.code, theirs.code, theirs.failed)
	}
}

func startsWith(whole, beginning []string) bool {
	return len(whole) >= len(beginning) && slices.Equal(whole[:len(beginning)], beginning)
}

// knownDifference reports whether ours is right to end, or go on, where the library
// does something else.
func knownDifference(m surveyed, d *decoder, ours, theirs decoded) bool {
	next := "" // message of theirs that ours does not have
	if len(theirs.messages) > len(ours.messages) {
		next = theirs.messages[len(ours.messages)]
	}
	switch {
	case ours.why == InvalidText && next != "":
		// The library leaves UTF-8 to its user (RFC 6455, section 8.1).
		return strings.HasPrefix(next, "text ") && !utf8.ValidString(next)
	case ours.why == InvalidText:
		// The same in the reason of a close frame, which it answers with its code (RFC
		// 6455, section 5.5.1).
		return m.badReason && theirs.failed && theirs.code != 0
	case ours.why == nil && ours.code == 0 && !d.idle() && theirs.code == 0:
		// The library takes the end of the stream inside a message for the message's,
		// and lets no more than that one through. A message has all of its frames (RFC
		// 6455, section 5.4), a frame all of its payload (5.2).
		return len(theirs.messages) <= len(ours.messages)+1
	case m.stopped == unmasked || m.stopped == topBit:
		// The library ends, but says nothing: a close frame with 1002 may be sent (RFC
		// 6455, sections 5.1 and 7.1.7).
		return ours.why == Violation && theirs.failed && theirs.code == 0 && next == ""
	case m.stopped == notMinimal:
		// The library goes on: the length is in the fewest bytes (RFC 6455, section 5.2).
		return ours.why == Violation
	case m.stopped == tooBig:
		// The library reads on up to the limit: what is announced may be refused (RFC
		// 6455, sections 7.4.1 and 10.4).
		return ours.why == TooBig
	case m.stopped == tooMany:
		// The library has no limit (RFC 6455, section 10.4).
		return ours.why == Flood
	}
	return false
}

// surveyed is what stands in a stream, found by going through its bytes once, whatever
// a decoder would say to it.
type surveyed struct {
	messages  []surveyedMessage // the last of them perhaps not whole
	stopped   stop              // what ended the survey
	badReason bool              // a close frame was met whose reason is not UTF-8
}

type surveyedMessage struct {
	compressed, whole bool
	payload           []byte // as on the wire
}

// stop is why a survey ended.
type stop int

const (
	ended stop = iota // with the stream, or by what both decoders refuse alike
	unmasked
	topBit
	notMinimal
	tooBig
	tooMany
)

// survey goes through a stream. What both decoders must refuse in the same way ends
// it without more: that they do is compared.
func survey(b []byte, compresses bool) (m surveyed) {
	inMessage, frames, announced := false, 0, uint64(0)
	for len(b) >= 2 {
		first, length, head := b[0], uint64(b[1]&0x7F), 2
		masked, control := b[1]&0x80 != 0, b[0]&8 != 0
		minimal := true
		switch length {
		case 126:
			if head = 4; len(b) < head {
				return m
			}
			length = uint64(binary.BigEndian.Uint16(b[2:]))
			minimal = length > 125
		case 127:
			if head = 10; len(b) < head {
				return m
			}
			length = binary.BigEndian.Uint64(b[2:])
			minimal = length >= 1<<16
		}
		if length >= 1<<63 {
			m.stopped = topBit // the library does not wait for the key
			return m
		}
		if masked {
			head += 4
		}
		if len(b) < head {
			return m
		}
		continues := first&0xF == 0
		switch {
		case first&0x30 != 0, first&0x40 != 0 && (!compresses || control || continues):
			return m
		case !masked:
			m.stopped = unmasked
			return m
		case first&7 > 2, control && (length > 125 || first&0x80 == 0), !control && continues != inMessage:
			return m
		case !minimal:
			m.stopped = notMinimal
			return m
		case control:
			if uint64(len(b)-head) < length {
				return m
			}
			payload := unmaskedCopy(b[:head], b[head:head+int(length)])
			b = b[head+int(length):]
			if first&0xF == byte(wire.OpClose) {
				m.badReason = len(payload) > 2 && !utf8.Valid(payload[2:])
				return m
			}
			continue
		}
		if !inMessage {
			frames, announced = 0, 0
			m.messages = append(m.messages, surveyedMessage{compressed: first&0x40 != 0})
		}
		frames++
		most := uint64(fuzzLimit)
		if m.messages[len(m.messages)-1].compressed {
			most += uint64(deflateSlack(fuzzLimit))
		}
		if announced += length; announced > most {
			m.stopped = tooBig
			return m
		}
		if frames > maxFragments {
			m.stopped = tooMany
			return m
		}
		last := &m.messages[len(m.messages)-1]
		n := min(int(length), len(b)-head)
		last.payload = append(last.payload, unmaskedCopy(b[:head], b[head:head+n])...)
		if b = b[head+n:]; n < int(length) {
			return m
		}
		last.whole = first&0x80 != 0
		inMessage = !last.whole
	}
	return m
}

func unmaskedCopy(head, payload []byte) []byte {
	key := head[len(head)-4:]
	payload = slices.Clone(payload)
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	return payload
}

// plainCompressed returns how many messages there are before the first compressed one
// that the library does not read as RFC 7692, section 7.2.2, has it: as a whole, all
// of its bytes, and no more than them. It takes the end of the stream, and of data
// that are cut, for the message's; it does not look at what follows a final block
// (7.2.3.4), hands it on as the next message's, and ends for broken data without a
// close frame.
func (m surveyed) plainCompressed() int {
	for i, message := range m.messages {
		if !message.compressed {
			continue
		}
		if !message.whole {
			return i
		}
		in := strings.NewReader(string(message.payload) + "\x00\x00\xff\xff")
		n, err := io.Copy(io.Discard, io.LimitReader(flate.NewReader(in), fuzzLimit+1))
		if n <= fuzzLimit && (!errors.Is(err, io.ErrUnexpectedEOF) || !endsWithABlock(message.payload)) {
			return i
		}
	}
	return len(m.messages)
}

// endsWithABlock reports whether a block ends where a message does, with what the
// sender has taken away: whatever final block follows, it is one.
func endsWithABlock(payload []byte) bool {
	read := func(end string) ([]byte, error) {
		return io.ReadAll(flate.NewReader(strings.NewReader(string(payload) + "\x00\x00\xff\xff" + end)))
	}
	a, err := read("\x01\x00\x00\xff\xff")
	b, errB := read("\x03\x00")
	return err == nil && errB == nil && bytes.Equal(a, b)
}

// script makes a stream of frames from bytes: for each frame its first byte, one that
// says how it is made, and its payload.
func script(b []byte, compresses bool) (stream []byte) {
	for len(b) >= 2 && len(stream) < 64<<10 {
		first, how := b[0], b[1]
		b = b[2:]
		n := min(len(b), int(how&0x1F))
		payload := string(b[:n])
		b = b[n:]
		switch how >> 5 {
		case 1: // long
			payload = strings.Repeat(payload, 40)
		case 2: // compressed
			payload = deflated(strings.Repeat(payload, 3))
		case 3: // many
			for range int(how&0x1F) * 40 {
				stream = append(stream, wiretest.Masked(first, "")...)
			}
			continue
		case 4: // a message of one frame, whatever the bits say
			first = 0x81 + first&1
			if compresses {
				first |= rsv1
				payload = deflated(payload)
			}
		case 5: // compressed as a final block
			payload = final(payload)
		}
		stream = append(stream, wiretest.Masked(first, payload)...)
	}
	return stream
}

// streams returns streams to begin the fuzzing with.
func streams() [][]byte {
	text, hello := byte(wire.OpText), deflated("hello")
	frames := [][]byte{
		wiretest.ClientFrame(wire.OpText, "hello"),
		wiretest.Masked(fin|rsv1|text, hello),
		wiretest.Masked(fin|rsv1|text, final("hello")),
		wiretest.Masked(fin|rsv1|text, hello[:3]),
		wiretest.Masked(fin|rsv1|text, deflated(strings.Repeat("\x00", 4*fuzzLimit))),
		append(wiretest.Masked(text, "he"), wiretest.Masked(fin, "llo")...),
		append(wiretest.Masked(rsv1|text, hello[:2]), wiretest.Masked(fin, hello[2:])...),
		append(wiretest.Masked(text, "caf\xc3"), wiretest.Masked(0, "\xa9")...),
		wiretest.ClientFrame(wire.OpPing, "ping"),
		wiretest.ClientFrame(wire.OpClose, "\x03\xe8bye"),
		wiretest.ClientFrame(wire.OpClose, "\x03\xe8\xff"),
		wiretest.ClientFrame(wire.OpClose, "\x03"),
		wiretest.ClientFrame(wire.OpClose, ""),
		wiretest.ServerFrame(wire.OpText, "hello"),
		append(announce(0x81, 5, 2), "hello"...),
		append(announce(0x82, 1000, 8), make([]byte, 1000)...),
		append(announce(0x82, 1000, 2), make([]byte, 1000)...),
		append(announce(0x82, fuzzLimit+1, 2), make([]byte, fuzzLimit+1)...),
		announce(0x82, 1<<63, 8), announce(0x82, 1<<62, 8), announce(0x89, 126, 2),
		wiretest.ClientFrame(wire.OpText, "\xff"),
	}
	all := frames
	for i, frame := range frames {
		all = append(all, frame[:len(frame)/2], append(slices.Clone(frames[i*7%len(frames)]), frame...))
	}
	return all
}

// scripts returns the like for script.
func scripts() [][]byte {
	return [][]byte{
		[]byte("\x81\x05hello\x89\x02hi\x01\x03abc\x89\x01x\x80\x03def\x88\x02\x03\xe8"),
		[]byte("\xc1\x45hello\x41\x43abc\x80\x00\x81\x85hello\x81\x85world\xc2\xa5final\x81\x02no"),
		[]byte("\x01\x01a\x00\x74\x80\x01b\x01\x01a\x00\x75\x80\x00"),
		[]byte("\x81\x23abc\x82\x3fabcdefghijklmnopqrstuvwxyz01234\x81\x3fabcdefghijklmnopqrstuvwxyz01234"),
	}
}
