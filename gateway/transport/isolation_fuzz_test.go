package transport

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// How a round of FuzzTwoConnections goes.
const (
	hostileCompresses = 1 << iota
	goodCompresses
	leftOpen // the hostile ones, until the good ones are done
	inMemory // the connections have no descriptor
	scripted // the bytes are for script
)

// FuzzTwoConnections: whatever bytes come over some connections of a transport, cut
// anywhere, and whether they then end or not: others are served as on a fresh one.
// Their messages, and the frames they get, are theirs alone, and nobody closes them
// (findings C1, C2, H1).
func FuzzTwoConnections(f *testing.F) {
	for i, seed := range streams() {
		f.Add(seed, byte(i*5%16), []byte{byte(i), 7, 250}, strings.Repeat("good ", 1+i%3*40))
	}
	for i, seed := range scripts() {
		for how := range byte(4) {
			f.Add(seed, how|byte(i)<<2|scripted, []byte{100, 1}, "good")
		}
	}
	cfg := testConfig()
	cfg.FrameSize = fuzzLimit
	tr := runTransport(f, cfg)
	f.Fuzz(func(t *testing.T, stream []byte, how byte, cuts []byte, said string) {
		if how&scripted != 0 {
			stream = script(stream, how&hostileCompresses != 0)
		}
		said = strings.ToValidUTF8(said, "?")
		round{t, tr, how, said[:min(len(said), fuzzLimit/2)]}.run(stream[:min(len(stream), 8<<10)], cuts)
	})
}

// round is one go of FuzzTwoConnections.
type round struct {
	*testing.T
	tr   *Transport
	how  byte
	said string // by the good ones
}

func (r round) open(compresses byte) *echo {
	connect := func() (net.Conn, net.Conn) { return wiretest.SmallPair(r.T) }
	if r.how&inMemory != 0 {
		connect = net.Pipe
	}
	server, peer := connect()
	return startEcho(r.tr, server, peer, r.how&compresses != 0)
}

func (r round) run(stream, cuts []byte) {
	r.said = strings.ToValidUTF8(r.said, "?")
	early := r.open(goodCompresses)
	hostile, half := r.open(hostileCompresses), r.open(hostileCompresses)
	if r.how&inMemory != 0 { // where who does not read cannot write either
		go func() { _, _ = io.Copy(io.Discard, hostile.peer) }()
		go func() { _, _ = io.Copy(io.Discard, half.peer) }()
	}
	r.send(half, stream[:len(stream)/2], cuts)
	r.send(hostile, stream, cuts)
	if r.how&leftOpen == 0 {
		r.end(hostile)
	}
	late := r.open(goodCompresses)
	r.serve(early)
	r.send(half, stream[len(stream)/2:], cuts)
	r.serve(late)
	r.end(hostile)
	r.end(half)
	r.check(hostile, stream)
	r.check(half, stream)
	if used := r.tr.cfg.Budget.Used(); used != 0 {
		r.Fatalf("%d bytes are still charged", used)
	}
}

func (r round) send(e *echo, stream, cuts []byte) {
	for _, piece := range cut(stream, cuts) {
		if _, err := e.peer.Write(piece); err != nil {
			return // it was closed
		}
	}
}

// end says that nothing follows, and waits until the connection is over.
func (r round) end(e *echo) {
	r.Helper()
	if nc, ok := e.peer.(interface{ CloseWrite() error }); ok {
		_ = nc.CloseWrite()
	} else {
		e.peer.Close()
	}
	e.awaitGone(r.T)
}

// check compares the messages of a hostile connection with those that a decoder finds
// that nobody else uses.
func (r round) check(e *echo, stream []byte) {
	r.Helper()
	alone := &decoder{limit: fuzzLimit, compresses: r.how&hostileCompresses != 0}
	events, _ := feed(alone, stream)
	controls := len(events)
	events = slices.DeleteFunc(events, func(event string) bool {
		return !strings.HasPrefix(event, "text ") && !strings.HasPrefix(event, "binary ")
	})
	controls -= len(events)
	if !startsWith(events, e.messages) {
		r.Fatalf("the hostile one was heard to say %.300q, but said %.300q", e.messages, events)
	}
	if r.how&inMemory == 0 && controls <= controlBurst && len(e.messages) < len(events) {
		r.Fatalf("%d of %d messages of the hostile one were heard", len(e.messages), len(events))
	}
}

// serve has a good client say something in every form there is, and checks the
// answers.
func (r round) serve(e *echo) {
	r.Helper()
	text, bin := byte(wire.OpText), byte(wire.OpBinary)
	first, third := r.said[:len(r.said)/3], r.said[len(r.said)/2:]
	second := r.said[len(first) : len(r.said)-len(third)]
	frames := [][]byte{
		wiretest.Masked(fin|text, r.said),
		wiretest.Masked(fin|bin, "\xff"+r.said),
		wiretest.ClientFrame(wire.OpPong, "nobody asked"),
		wiretest.Masked(text, first), wiretest.Masked(0, second), wiretest.Masked(fin, third),
		wiretest.ClientFrame(wire.OpPing, "ping"),
		wiretest.Masked(fin|bin, ""),
	}
	want := []string{"text " + r.said, "binary \xff" + r.said, "text " + r.said, "binary "}
	if r.how&goodCompresses != 0 {
		short := deflated(r.said)
		half := len(short) / 2
		frames = append(frames,
			wiretest.Masked(fin|rsv1|text, short),
			wiretest.Masked(fin|rsv1|bin, final(r.said)),
			wiretest.Masked(rsv1|text, short[:half]), wiretest.Masked(fin, short[half:]),
		)
		want = append(want, "text "+r.said, "binary "+r.said, "text "+r.said)
	}
	messages := slices.Clone(want)
	for _, frame := range append(frames, wiretest.ClientFrame(wire.OpClose, "\x03\xe8")) {
		if _, err := e.peer.Write(frame); err != nil {
			r.Fatalf("a good one is closed: %v", err)
		}
	}
	got, err := replies(e.peer)
	got = slices.DeleteFunc(got, func(s string) bool { return s == "pong ping" }) // it may overtake
	if want = append(want, "close 1000"); err != nil || !slices.Equal(got, want) {
		r.Fatalf("a good one got %.300q, %v\nwant %.300q", got, err, want)
	}
	e.awaitGone(r.T)
	if !slices.Equal(e.messages, messages) {
		r.Fatalf("a good one was heard to say %.300q, but said %.300q", e.messages, messages)
	}
}
