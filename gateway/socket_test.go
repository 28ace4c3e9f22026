package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wssgateway/gateway/wire"
)

// ends runs a test on a socket over each kind of connection, with the peer's end:
// in memory, where every write waits; where the kernel takes little; over TCP.
func ends(t *testing.T, test func(t *testing.T, s *socket, peer net.Conn)) {
	for name, connect := range map[string]func() (net.Conn, net.Conn){
		"pipe":  net.Pipe,
		"small": func() (net.Conn, net.Conn) { return socketPair(t) },
		"tcp":   func() (net.Conn, net.Conn) { return tcpPair(t) },
	} {
		t.Run(name, func(t *testing.T) {
			nc, peer := connect()
			defer peer.Close()
			test(t, newSocket(t, nc), peer)
		})
	}
}

// socketPair returns the two ends of a connection in which little has room.
func socketPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetsockoptInt(fds[0], syscall.SOL_SOCKET, syscall.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return conns[0], conns[1]
}

func tcpPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// newSocket returns a socket as accept makes it, with an outbox without bound.
func newSocket(t testing.TB, nc net.Conn) *socket {
	t.Helper()
	s := &socket{limit: 1 << 30, owner: &owner{}, seen: new(atomic.Int32)}
	if err := s.adopt(nc, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.cut()
		s.awaitDrained() // its goroutine has ended
	})
	return s
}

// owner keeps the causes that a socket reports.
type owner struct {
	mu     sync.Mutex
	causes []cause
}

func (o *owner) fail(why cause) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.causes = append(o.causes, why)
	return len(o.causes) == 1
}

// clientFrame returns a frame as a client sends it, masked.
func clientFrame(op wire.Opcode, payload string) []byte {
	b := wire.AppendHeader(nil, op, len(payload))
	b[1] |= 0x80
	key := []byte{1, 2, 3, 4}
	b = append(b, key...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

func serverFrame(op wire.Opcode, payload string) []byte {
	return append(wire.AppendHeader(nil, op, len(payload)), payload...)
}

// received reads frames of the server from peer until it closes, or n are there.
func received(t *testing.T, peer net.Conn, n int) (frames [][]byte) {
	t.Helper()
	for len(frames) != n {
		frame, err := readFrame(peer)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d frames: %v", len(frames), err)
		}
		frames = append(frames, frame)
	}
	return frames
}

// readFrame returns io.EOF only between frames.
func readFrame(r io.Reader) ([]byte, error) {
	frame := make([]byte, 2, 64)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	switch frame[1] {
	case 126:
		frame = frame[:4]
	case 127:
		frame = frame[:10]
	}
	_, err := io.ReadFull(r, frame[2:])
	if err == nil {
		head := len(frame)
		frame = slices.Grow(frame, frameSize(frame)-head)[:frameSize(frame)]
		_, err = io.ReadFull(r, frame[head:])
	}
	if err != nil {
		return nil, errors.Join(errors.New("torn frame"), io.ErrUnexpectedEOF)
	}
	return frame, nil
}

func frameSize(header []byte) int {
	switch n := int(header[1]); n {
	case 126:
		return 4 + int(binary.BigEndian.Uint16(header[2:]))
	case 127:
		return 10 + int(binary.BigEndian.Uint64(header[2:]))
	default:
		return 2 + n
	}
}

// TestReadingKnowsFrames cuts what a client sends at every position: the library
// gets what is for it and never a byte of the next frame, pings are answered.
func TestReadingKnowsFrames(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 200))
	sent := [][]byte{
		clientFrame(wire.OpPing, "first"),
		clientFrame(wire.OpText, "hello"),
		clientFrame(wire.OpPong, "unasked"),
		clientFrame(wire.OpPing, ""),
		clientFrame(wire.OpBinary, long),
		clientFrame(wire.OpPing, long[:125]),
		clientFrame(wire.OpText, ""),
		clientFrame(wire.OpClose, "\x03\xe8"),
	}
	forLibrary := [][]byte{sent[1], sent[4], sent[6], sent[7]}
	stream := bytes.Join(sent, nil)
	pongs := [][]byte{
		serverFrame(wire.OpPong, "first"), serverFrame(wire.OpPong, ""), serverFrame(wire.OpPong, long[:125]),
	}
	ends(t, func(t *testing.T, s *socket, peer net.Conn) {
		for cut := range stream {
			parts := [][]byte{stream[cut:]}
			if cut > 0 {
				parts = [][]byte{stream[:cut], stream[cut:]}
			}
			answered := make(chan [][]byte, 1)
			go func() { answered <- received(t, peer, len(pongs)) }()
			got := readAsConn(t, s, len(forLibrary), func() {
				if len(parts) > 0 {
					part := parts[0]
					parts = parts[1:]
					go func() { _, _ = peer.Write(part) }()
				}
			})
			if !slices.EqualFunc(got, forLibrary, bytes.Equal) {
				t.Fatalf("cut at %d: the library got %q", cut, got)
			}
			if p := <-answered; !slices.EqualFunc(p, pongs, bytes.Equal) {
				t.Fatalf("cut at %d: the client got %q", cut, p)
			}
			if s.in != nil {
				t.Fatalf("cut at %d: a buffer is kept with nothing in it", cut)
			}
		}
	})
}

// readAsConn reads n frames for the library as a conn and the library do
// together. It calls hungry before it waits.
func readAsConn(t *testing.T, s *socket, n int, hungry func()) (frames [][]byte) {
	t.Helper()
	for len(frames) < n {
		for s.left == 0 && !s.next() {
			hungry()
			if err := s.wait(); err != nil {
				t.Fatal(err)
			}
		}
		frame := make([]byte, s.left)
		for at := 0; at < len(frame); {
			if len(s.buffered()) == 0 {
				hungry()
			}
			read, err := s.Read(frame[at:min(at+7, len(frame))])
			if err != nil {
				t.Fatal(err)
			}
			at += read
		}
		frames = append(frames, frame)
	}
	return frames
}

func TestBadControlFramesAreTheLibrarys(t *testing.T) {
	unmasked := serverFrame(wire.OpPing, "x")
	fragment := clientFrame(wire.OpPing, "x")
	fragment[0] &^= 0x80
	reserved := clientFrame(wire.OpPong, "x")
	reserved[0] |= 0x40
	for name, frame := range map[string][]byte{
		"unmasked": unmasked, "fragment": fragment, "reserved bit": reserved,
		"too long": clientFrame(wire.OpPing, string(make([]byte, 126))),
	} {
		h, ok := parseFrameHeader(frame)
		if !ok || h.pingOrPong() {
			t.Errorf("%s: is taken for a good one", name)
		}
	}
	huge := append([]byte{0x82, 0xFF}, bytes.Repeat([]byte{0xFF}, 12)...)
	if h, ok := parseFrameHeader(huge); !ok || h.length() <= 0 {
		t.Errorf("the longest frame has length %d", h.length())
	}
}

func TestEarlyDataIsRead(t *testing.T) {
	ends(t, func(t *testing.T, s *socket, peer net.Conn) {
		ping, text := clientFrame(wire.OpPing, "early"), clientFrame(wire.OpText, "bird")
		if err := s.adopt(s.Conn, slices.Concat(ping, text[:3])); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = peer.Write(text[3:]) }()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, text) {
			t.Errorf("read %q, %v", got, err)
		}
		if pong := received(t, peer, 1); string(pong[0]) != string(serverFrame(wire.OpPong, "early")) {
			t.Errorf("got %q", pong)
		}
		if err := new(socket).adopt(s.Conn, make([]byte, 5000)); err == nil {
			t.Error("more than the buffer holds was taken")
		}
	})
}

// TestControlFramesOfTheLibraryStayWhole has the library write its frames byte
// by byte while others send.
func TestControlFramesOfTheLibraryStayWhole(t *testing.T) {
	ends(t, func(t *testing.T, s *socket, peer net.Conn) {
		pong, data := serverFrame(wire.OpPong, "some payload"), serverFrame(wire.OpText, "data")
		const rounds = 200
		var wg sync.WaitGroup
		wg.Go(func() {
			for range rounds {
				for i := range pong {
					if n, err := s.Write(pong[i : i+1]); n != 1 || err != nil {
						t.Errorf("write: %d, %v", n, err)
					}
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				s.send(data)
			}
		})
		counts := map[string]int{}
		for _, f := range received(t, peer, 2*rounds) {
			counts[string(f)]++
		}
		wg.Wait()
		if counts[string(pong)] != rounds || counts[string(data)] != rounds {
			t.Errorf("got %v", counts)
		}
		go func() { // the library's close frame is the last one
			_, _ = s.Write(wire.Close(wire.CloseNormal, "")[:2])
			_, _ = s.Write(wire.Close(wire.CloseNormal, "")[2:])
			s.send(data)
			_ = s.Close()
		}()
		if last := received(t, peer, -1); len(last) != 1 || !bytes.Equal(last[0], wire.Close(wire.CloseNormal, "")) {
			t.Errorf("got %q at the end", last)
		}
	})
}

func TestFrameEnd(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var run []byte
		ends := []int{0}
		for range random.IntN(6) {
			size := []int{0, 1, 125, 126, 300, 65535, 65536}[random.IntN(7)]
			run = append(run, serverFrame(wire.OpText, string(make([]byte, size)))...)
			ends = append(ends, len(run))
		}
		for pos := 0; pos <= len(run); pos += 1 + random.IntN(50) {
			i, _ := slices.BinarySearch(ends, pos)
			if got := wire.FrameEnd(run, pos); got != ends[i] {
				t.Fatalf("FrameEnd at %d of frames that end at %v: %d", pos, ends, got)
			}
		}
	}
}

// numbered returns the nth frame of a test.
func numbered(n int) []byte {
	payload := make([]byte, 8+n*37%3000)
	binary.BigEndian.PutUint64(payload, uint64(n))
	return serverFrame(wire.OpBinary, string(payload))
}

// TestShutKeepsFramesWhole closes at random moments: what comes is a beginning
// of what was sent, in whole frames, and the close frame.
func TestShutKeepsFramesWhole(t *testing.T) {
	closeFrame := wire.Close(wire.CloseSlow, "too slow")
	for _, drop := range []bool{true, false} {
		for round := range 60 {
			ends(t, func(t *testing.T, s *socket, peer net.Conn) {
				sent := make(chan int, 1)
				go func() {
					sent <- sendRandomly(s, rand.New(rand.NewPCG(uint64(round), 0)))
					s.shut(closeFrame, drop)
					s.send(numbered(0)) // nothing may follow
					_ = s.Close()
				}()
				frames := received(t, peer, -1)
				last := len(frames) - 1
				if last < 0 || !bytes.Equal(frames[last], closeFrame) {
					t.Fatalf("round %d: %d frames, and no close frame at the end", round, len(frames))
				}
				for i, f := range frames[:last] {
					if !bytes.Equal(f, numbered(i)) {
						t.Fatalf("round %d: frame %d of %d is another", round, i, last)
					}
				}
				if n := <-sent; !drop && last != n {
					t.Fatalf("round %d: %d of %d frames came", round, last, n)
				}
			})
		}
	}
}

// sendRandomly sends some runs of frames, and returns how many frames.
func sendRandomly(s *socket, random *rand.Rand) (n int) {
	for range random.IntN(50) {
		var run []byte
		for range 1 + random.IntN(4) {
			run = append(run, numbered(n)...)
			n++
		}
		s.send(run)
		switch random.IntN(4) {
		case 0:
			s.awaitDrained()
		case 1:
			runtime.Gosched()
		}
	}
	return n
}

// TestShutBetweenTwoWrites drops an outbox at the moment at which the write
// before is over and the next one has not begun.
func TestShutBetweenTwoWrites(t *testing.T) {
	closeFrame := wire.Close(wire.CloseSlow, "")
	long, short := serverFrame(wire.OpText, string(make([]byte, 60_000))), serverFrame(wire.OpText, "short")
	s := &socket{seen: new(atomic.Int32), flushing: true, out: [][]byte{long, short, long}, outBytes: 2*len(long) + len(short)}
	for {
		piece, _ := s.piece()
		if s.wrote(len(piece)); s.outPos == 0 {
			break
		}
	}
	s.shut(closeFrame, true)
	if len(s.out) != 1 || !bytes.Equal(s.out[0], closeFrame) || s.outBytes != len(closeFrame) {
		t.Errorf("the outbox has %q, %d bytes", s.out, s.outBytes)
	}
}

// TestNothingFollowsWhatWasRefused: a client that got a message after one that
// did not fit would take itself for being up to date.
func TestNothingFollowsWhatWasRefused(t *testing.T) {
	peer, nc := net.Pipe()
	s := newSocket(t, nc)
	s.limit = 1000
	first, refused, small := numbered(1), serverFrame(wire.OpText, string(make([]byte, 1000))), numbered(2)
	s.send(first)
	s.send(refused)
	s.send(small)
	s.shut(wire.Close(wire.CloseSlow, ""), false)
	go s.Close()
	if got := received(t, peer, -1); len(got) != 2 || !bytes.Equal(got[0], first) {
		t.Errorf("got %d frames, want the first and the close frame", len(got))
	}
	if why := s.owner.(*owner).causes; !slices.Equal(why, []cause{causeSlow}) {
		t.Errorf("reported %v", why)
	}
}

// TestOutboxIsBounded: what a peer that does not read costs.
func TestOutboxIsBounded(t *testing.T) {
	nc, peer := socketPair(t)
	defer peer.Close()
	s := newSocket(t, nc)
	s.limit = 100_000
	o := s.owner.(*owner)
	frame := serverFrame(wire.OpText, string(make([]byte, 1000)))
	for n := 0; len(o.causes) == 0; n++ {
		if s.send(frame); n > 100_000 {
			t.Fatal("everything is taken")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outBytes > s.limit || s.outBytes < s.limit/2 {
		t.Errorf("%d bytes wait, the limit is %d", s.outBytes, s.limit)
	}
}

// TestAwaitDrained wakes whoever waits when the peer has read, and when it is gone.
func TestAwaitDrained(t *testing.T) {
	ends(t, func(t *testing.T, s *socket, peer net.Conn) {
		big := serverFrame(wire.OpText, string(make([]byte, 8<<20)))
		s.send(big)
		go func() { _, _ = io.CopyN(io.Discard, peer, int64(len(big))) }()
		s.awaitDrained()
		if !s.idle() {
			t.Error("drained, and not idle")
		}
		s.send(big)
		done := make(chan struct{})
		go func() { s.awaitDrained(); close(done) }()
		peer.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("still waiting for a peer that is gone")
		}
	})
}
