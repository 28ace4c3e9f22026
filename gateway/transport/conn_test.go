package transport

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// ends runs a test on a connection of each kind, with the peer's end: in memory, where
// every write waits; where the kernel takes little; over TCP.
func ends(t *testing.T, test func(t *testing.T, c *testConn, peer net.Conn)) {
	for name, connect := range map[string]func() (net.Conn, net.Conn){
		"pipe":  net.Pipe,
		"small": func() (net.Conn, net.Conn) { return wiretest.SmallPair(t) },
		"tcp":   func() (net.Conn, net.Conn) { return wiretest.TCPPair(t) },
	} {
		t.Run(name, func(t *testing.T) {
			nc, peer := connect()
			defer peer.Close()
			test(t, newConn(t, nc, nil), peer)
		})
	}
}

// testConn is a connection, and what its owner was told.
type testConn struct {
	Conn
	told     sync.Mutex // guards what follows
	messages []string
	ended    []*Cause
	alarms   int
	gone     chan struct{}
	handle   func(string) // each message, unless nil
}

func (c *testConn) Message(binary bool, data []byte) {
	c.told.Lock()
	c.messages = append(c.messages, string(data))
	c.told.Unlock()
	if c.handle != nil {
		c.handle(string(data))
	}
}

func (c *testConn) Alarm() {
	c.told.Lock()
	defer c.told.Unlock()
	c.alarms++
}

func (c *testConn) End(why *Cause) {
	c.told.Lock()
	defer c.told.Unlock()
	c.ended = append(c.ended, why)
}

func (c *testConn) Gone() { close(c.gone) }

// causes returns what the owner was told of the end.
func (c *testConn) causes() []*Cause {
	c.told.Lock()
	defer c.told.Unlock()
	return slices.Clone(c.ended)
}

// testConfig is a configuration of a Transport that bounds next to nothing.
func testConfig() Config {
	return Config{
		FrameSize: 1 << 16, Outbox: 1 << 30, Compression: true, Budget: NewBudget(1 << 40),
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
}

func newTransport(t testing.TB, cfg Config) *Transport {
	t.Helper()
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// newConn returns a connection that is not started.
func newConn(t testing.TB, nc net.Conn, change func(*Config)) *testConn {
	t.Helper()
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	c := &testConn{gone: make(chan struct{})}
	newTransport(t, cfg).Adopt(nc, nil, true, &c.Conn, c)
	t.Cleanup(func() {
		c.Cut()
		c.AwaitDrained() // its goroutine has ended
	})
	return c
}

// numbered returns the nth frame of a test.
func numbered(n int) []byte {
	payload := make([]byte, 8+n*37%3000)
	binary.BigEndian.PutUint64(payload, uint64(n))
	return wiretest.ServerFrame(wire.OpBinary, string(payload))
}

// TestShutKeepsFramesWhole closes at random moments: what comes is a beginning
// of what was sent, in whole frames, and the close frame.
func TestShutKeepsFramesWhole(t *testing.T) {
	closeFrame := wire.Close(wire.CloseSlow, "too slow")
	for _, drop := range []bool{true, false} {
		for round := range 60 {
			ends(t, func(t *testing.T, c *testConn, peer net.Conn) {
				sent := make(chan int, 1)
				go func() {
					sent <- sendRandomly(c, rand.New(rand.NewPCG(uint64(round), 0)))
					c.shut(closeFrame, drop)
					c.Send(numbered(0)) // nothing may follow
					c.close()
				}()
				frames := wiretest.ReadFrames(t, peer, -1)
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
func sendRandomly(c *testConn, random *rand.Rand) (n int) {
	for range random.IntN(50) {
		var run []byte
		for range 1 + random.IntN(4) {
			run = append(run, numbered(n)...)
			n++
		}
		c.Send(run)
		switch random.IntN(4) {
		case 0:
			c.AwaitDrained()
		case 1:
			runtime.Gosched()
		}
	}
	return n
}

// TestShutBetweenTwoWrites drops an outbox at the moment at which the write before
// is over and the next one has not begun.
func TestShutBetweenTwoWrites(t *testing.T) {
	nc, peer := net.Pipe()
	defer peer.Close()
	c := newConn(t, nc, nil)
	closeFrame := wire.Close(wire.CloseSlow, "")
	long, short := wiretest.ServerFrame(wire.OpText, string(make([]byte, 60_000))), wiretest.ServerFrame(wire.OpText, "short")
	c.flushing = true // by this test
	for _, frames := range [][]byte{long, short, long} {
		c.enqueue(frames)
	}
	for {
		piece, _ := c.piece()
		if c.wrote(len(piece)); c.outPos == 0 {
			break
		}
	}
	c.shut(closeFrame, true)
	if len(c.out) != 1 || !bytes.Equal(c.out[0], closeFrame) || c.memory != memoryOf(c.out[0]) {
		t.Errorf("the outbox has %q, %d bytes", c.out, c.memory)
	}
	c.abandon()
}

// TestNothingFollowsWhatWasRefused: a client that got a message after one that did
// not fit would take itself for being up to date.
func TestNothingFollowsWhatWasRefused(t *testing.T) {
	peer, nc := net.Pipe()
	c := newConn(t, nc, func(cfg *Config) { cfg.Outbox = 1000 })
	first, refused, small := numbered(1), wiretest.ServerFrame(wire.OpText, string(make([]byte, 1000))), numbered(2)
	c.Send(first)
	c.Send(refused)
	c.Send(small)
	go c.close()
	got := wiretest.ReadFrames(t, peer, -1)
	if last := len(got) - 1; last < 0 || !bytes.Equal(got[last], wire.Close(Slow.Code, Slow.Reason)) {
		t.Errorf("got %d frames, and no close frame at the end", len(got))
	} else if last > 1 || last == 1 && !bytes.Equal(got[0], first) {
		t.Errorf("got %d frames, want the first at the most and the close frame", len(got))
	}
	if why := c.Cause(); why != Slow {
		t.Errorf("ended as %v", why)
	}
}

// TestOutboxIsBounded: what a peer that does not read costs, be it in large frames,
// or in frames of which the slice that holds them is larger (finding H2).
func TestOutboxIsBounded(t *testing.T) {
	const bound = 200_000
	for name, size := range map[string]int{"large": 1000, "small": 2, "of ownFrames": ownFrames} {
		t.Run(name, func(t *testing.T) {
			nc, peer := wiretest.SmallPair(t)
			defer peer.Close()
			c := newConn(t, nc, func(cfg *Config) { cfg.Outbox = bound })
			before := heap()
			sent := 0
			for ; c.Cause() == nil; sent++ {
				if c.Send(wiretest.ServerFrame(wire.OpText, string(make([]byte, size)))); sent > 10_000_000 {
					t.Fatal("everything is taken")
				}
				if c.Cause() == nil {
					c.mu.Lock()
					memory := c.memory
					c.mu.Unlock()
					if memory > bound+ownMemory || sent%1000 == 0 && heap() > before+2*bound {
						t.Fatalf("%d bytes are held after %d frames, %d by count", heap()-before, sent, memory)
					}
				}
			}
			if c.Cause() != Slow || sent*size < bound/100 {
				t.Errorf("ended as %v after %d frames", c.Cause(), sent)
			}
		})
	}
}

// heap returns how much memory is in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestAwaitDrained wakes whoever waits when the peer has read, and when it is gone.
func TestAwaitDrained(t *testing.T) {
	ends(t, func(t *testing.T, c *testConn, peer net.Conn) {
		big := wiretest.ServerFrame(wire.OpText, string(make([]byte, 8<<20)))
		c.Send(big)
		go func() { _, _ = io.CopyN(io.Discard, peer, int64(len(big))) }()
		c.AwaitDrained()
		c.mu.Lock()
		if c.flushing || c.memory != 0 || c.backlog.Load() != 0 {
			t.Errorf("drained, with %d bytes, %d charged", c.memory, c.backlog.Load())
		}
		c.mu.Unlock()
		c.Send(big)
		done := make(chan struct{})
		go func() { c.AwaitDrained(); close(done) }()
		peer.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("still waiting for a peer that is gone")
		}
	})
}
