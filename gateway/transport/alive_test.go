package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// bubble runs a test on virtual time, with connections in memory.
func bubble(t *testing.T, test func(t *testing.T, b *bubbled)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		b := &bubbled{t: t, transport: newTransport(t, testConfig())}
		var wg sync.WaitGroup
		wg.Go(func() { b.transport.wheel.run(ctx) }) // no poller: what waits for the kernel stops the clock
		defer b.transport.workers.stop()
		test(t, b)
		for _, p := range b.peers {
			p.Close()
		}
		synctest.Wait()
		stop()
		wg.Wait()
		for i, c := range b.conns {
			select {
			case <-c.gone:
			default:
				t.Errorf("connection %d is not gone", i)
			}
		}
		if held := b.transport.cfg.Budget.Used(); held != 0 {
			t.Errorf("%d bytes are still charged", held)
		}
	})
}

type bubbled struct {
	t         *testing.T
	transport *Transport
	conns     []*testConn
	peers     []*peer
}

// peer is the other end of a connection. It answers pings unless it is mute.
type peer struct {
	net.Conn
	mute bool

	mu     sync.Mutex
	frames [][]byte
}

// connect returns a connection that was started, and its peer, which reads.
func (b *bubbled) connect(handle func(string), mute bool) (*testConn, *peer) {
	nc, other := net.Pipe()
	c := &testConn{gone: make(chan struct{}), handle: handle}
	b.transport.Adopt(nc, nil, false, &c.Conn, c)
	p := &peer{Conn: other, mute: mute}
	b.conns, b.peers = append(b.conns, c), append(b.peers, p)
	go c.Start(nil)
	go p.read(b.t)
	return c, p
}

func (p *peer) read(t *testing.T) {
	for {
		f, err := wiretest.ReadFrame(p)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("peer: %v", err)
			}
			return
		}
		p.mu.Lock()
		p.frames = append(p.frames, f)
		p.mu.Unlock()
		if wire.Opcode(f[0]&0x0F) == wire.OpPing && !p.mute {
			_, _ = p.Write(wiretest.ClientFrame(wire.OpPong, string(f[2:])))
		}
	}
}

// got returns how many frames of a kind came.
func (p *peer) got(op wire.Opcode) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.frames {
		if wire.Opcode(f[0]&0x0F) == op {
			n++
		}
	}
	return n
}

// closed returns the close frame that came, or nil.
func (p *peer) closed() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.frames, func(f []byte) bool { return wire.Opcode(f[0]&0x0F) == wire.OpClose })
	if i < 0 {
		return nil
	}
	return p.frames[i]
}

// stall holds the wheel's goroutine up, as a process is that was stopped.
func (b *bubbled) stall(d time.Duration) {
	f := &timed{fire: func() { time.Sleep(d) }}
	b.transport.wheel.schedule(f, at(0))
	time.Sleep(d + wheelTick)
}

func TestPeersThatAnswerPingsStay(t *testing.T) {
	bubble(t, func(t *testing.T, b *bubbled) {
		alive, answering := b.connect(nil, false)
		silent, mute := b.connect(nil, true)
		alive.SetTimeout(20 * time.Second)
		silent.SetTimeout(20 * time.Second)
		time.Sleep(19 * time.Second)
		if silent.Cause() != nil {
			t.Error("closed before its time")
		}
		time.Sleep(2 * time.Second)
		if silent.Cause() != Silent {
			t.Errorf("a peer that is silent: %v", silent.Cause())
		}
		time.Sleep(5 * time.Minute)
		if alive.Cause() != nil || answering.closed() != nil {
			t.Errorf("a peer that answers: %v", alive.Cause())
		}
		if n := answering.got(wire.OpPing); n < 28 || n > 36 {
			t.Errorf("%d pings in 321 s, want one in 10", n)
		}
		if f := mute.closed(); string(f) != string(wire.Close(Silent.Code, Silent.Reason)) {
			t.Errorf("the silent one got %q", f)
		}
	})
}

// TestPauseOfTheProcessClosesNobody: while it was stopped nobody could be heard
// (finding A16).
func TestPauseOfTheProcessClosesNobody(t *testing.T) {
	for _, pause := range []time.Duration{15 * time.Second, time.Minute, time.Hour} {
		bubble(t, func(t *testing.T, b *bubbled) {
			for range 20 {
				c, _ := b.connect(nil, false)
				c.SetTimeout(20 * time.Second)
			}
			gone, _ := b.connect(nil, true)
			gone.SetTimeout(20 * time.Second)
			late, _ := b.connect(nil, false)
			late.SetTimeout(20 * time.Second)
			late.SetAlarm(5 * time.Second)
			clock := b.transport.Clock()
			b.stall(pause)
			time.Sleep(time.Minute)
			for i, c := range b.conns[:20] {
				if why := c.Cause(); why != nil {
					t.Fatalf("paused for %v: connection %d was closed: %s", pause, i, why.Label)
				}
			}
			if gone.Cause() != Silent {
				t.Errorf("paused for %v: a peer that is gone: %v", pause, gone.Cause())
			}
			if late.alarms != 1 {
				t.Errorf("paused for %v: %d alarms", pause, late.alarms)
			}
			if awake := b.transport.Clock() - clock; awake < 55*time.Second || awake > 65*time.Second {
				t.Errorf("paused for %v, the clock went on by %v", pause, awake)
			}
		})
	}
}

// TestWhoIsBusyIsNotSilent: while a message is handled nobody listens to the peer
// (finding A10).
func TestWhoIsBusyIsNotSilent(t *testing.T) {
	bubble(t, func(t *testing.T, b *bubbled) {
		c, p := b.connect(func(string) { time.Sleep(70 * time.Second) }, true)
		c.SetTimeout(20 * time.Second)
		_, _ = p.Write(wiretest.ClientFrame(wire.OpText, "slow"))
		time.Sleep(80 * time.Second)
		if c.Cause() != nil {
			t.Fatalf("ended 10 s after its request was answered: %s", c.Cause().Label)
		}
		time.Sleep(20 * time.Second)
		if c.Cause() != Silent {
			t.Errorf("silent for 30 s: %v", c.Cause())
		}
	})
}

// TestControlFramesHaveARate (findings H2, M1, A19).
func TestControlFramesHaveARate(t *testing.T) {
	ping, pong := wiretest.ClientFrame(wire.OpPing, "x"), wiretest.ClientFrame(wire.OpPong, "")
	for name, frame := range map[string][]byte{"pings": ping, "pongs": pong} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *bubbled) {
				c, p := b.connect(nil, true)
				for range controlBurst {
					_, _ = p.Write(frame)
				}
				for range 1000 { // ten a second
					time.Sleep(100 * time.Millisecond)
					_, _ = p.Write(frame)
				}
				if c.Cause() != nil {
					t.Fatalf("within the rate: %s", c.Cause().Label)
				}
				for range 5 {
					_, _ = p.Write(frame)
				}
				synctest.Wait()
				if f := p.closed(); c.Cause() != Flood || string(f) != string(wire.Close(Flood.Code, Flood.Reason)) {
					t.Errorf("over the rate: %v, %q", c.Cause(), f)
				}
			})
		})
	}
}

// TestWhatQueuedUpInAPauseIsNoFlood: a client that pings twice a second is within
// the rate, also if the node was paused.
func TestWhatQueuedUpInAPauseIsNoFlood(t *testing.T) {
	bubble(t, func(t *testing.T, b *bubbled) {
		c, p := b.connect(nil, true)
		b.stall(100 * time.Second)
		_, _ = p.Write([]byte(strings.Repeat(string(wiretest.ClientFrame(wire.OpPing, "")), 200)))
		synctest.Wait()
		if c.Cause() != nil {
			t.Fatalf("closed: %s", c.Cause().Label)
		}
		time.Sleep(20 * time.Second) // it is over
		_, _ = p.Write([]byte(strings.Repeat(string(wiretest.ClientFrame(wire.OpPing, "")), 200)))
		synctest.Wait()
		if c.Cause() != Flood {
			t.Errorf("200 pings at once: %v", c.Cause())
		}
	})
}

// TestLastPingIsAnswered: of pings that come together, or that a peer sends which
// does not read, one is (RFC 6455, section 5.5.3; findings H2, A19).
func TestLastPingIsAnswered(t *testing.T) {
	nc, peer := net.Pipe()
	defer peer.Close()
	c := newConn(t, nc, nil)
	c.Send(wiretest.ServerFrame(wire.OpText, "before")) // waits, as the peer does not read
	await(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.inflight > 0 })
	go c.Start(nil)
	go func() {
		for i := range 40 {
			_, _ = peer.Write(wiretest.ClientFrame(wire.OpPing, string(rune('a'+i%26))))
		}
		_, _ = peer.Write(wiretest.ClientFrame(wire.OpPing, "last"))
		_, _ = peer.Write(wiretest.ClientFrame(wire.OpText, "done"))
	}()
	await(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return string(c.pong) == "\x8a\x04last" })
	c.mu.Lock()
	if len(c.out) != 1 {
		t.Errorf("%d entries wait", len(c.out))
	}
	c.mu.Unlock()
	c.Send(wiretest.ServerFrame(wire.OpText, "after"))
	for i, want := range []string{"before", "last", "after"} {
		if f, err := wiretest.ReadFrame(peer); err != nil || string(f[2:]) != want {
			t.Errorf("frame %d: %q, %v, want %q", i, f, err, want)
		}
	}
}

// await waits until f is true.
func await(t testing.TB, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// TestPeerThatDoesNotAnswerACloseIsCut: in time, though it goes on sending.
func TestPeerThatDoesNotAnswerACloseIsCut(t *testing.T) {
	for name, end := range map[string]func(c *testConn, p *peer){
		"the owner's":     func(c *testConn, p *peer) { c.Fail(Overloaded) },
		"the transport's": func(c *testConn, p *peer) { _, _ = p.Write([]byte{0x81, 0x00}) }, // not masked
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *bubbled) {
				c, p := b.connect(nil, true)
				end(c, p)
				for i := 0; ; i++ {
					if _, err := p.Write(wiretest.ClientFrame(wire.OpText, "more")); err != nil {
						break
					}
					if time.Sleep(100 * time.Millisecond); i > 100 {
						t.Fatal("not cut")
					}
				}
				synctest.Wait()
				if len(c.causes()) != 1 || len(c.messages) != 0 || p.closed() == nil {
					t.Errorf("told of %v, %d messages, %q", c.causes(), len(c.messages), p.closed())
				}
			})
		})
	}
}

// TestPanicEndsItsConnection and no other (findings L5, B9).
func TestPanicEndsItsConnection(t *testing.T) {
	bubble(t, func(t *testing.T, b *bubbled) {
		var panicking []*testConn
		for range 5 {
			c, p := b.connect(func(m string) { panic("at " + m) }, false)
			_, _ = p.Write(slices.Concat(wiretest.ClientFrame(wire.OpText, "first"), wiretest.ClientFrame(wire.OpText, "second")))
			panicking = append(panicking, c)
		}
		first := &testConn{gone: make(chan struct{})}
		nc, other := net.Pipe()
		b.transport.Adopt(nc, nil, false, &first.Conn, first)
		p := &peer{Conn: other}
		b.conns, b.peers = append(b.conns, first), append(b.peers, p)
		go first.Start(func() { panic("in the first request") })
		go p.read(t)
		well, _ := b.connect(nil, false)
		_, _ = b.peers[len(b.peers)-1].Write(wiretest.ClientFrame(wire.OpText, "well"))
		synctest.Wait()
		for i, c := range append(panicking, first) {
			if c.Cause() != Panicked || len(c.messages) > 1 {
				t.Errorf("connection %d: %v after %d messages", i, c.Cause(), len(c.messages))
			}
			if f := b.peers[i].closed(); string(f) != string(wire.Close(wire.CloseInternal, Panicked.Reason)) {
				t.Errorf("connection %d got %q", i, f)
			}
		}
		if well.Cause() != nil || len(well.messages) != 1 {
			t.Errorf("the other one: %v, %q", well.Cause(), well.messages)
		}
	})
}

// TestHalfAMessageIsNone: the end of the stream inside a message is the end of the
// connection and nothing else, wherever that is (findings H1, A3).
func TestHalfAMessageIsNone(t *testing.T) {
	whole := slices.Concat(
		wiretest.Masked(byte(wire.OpBinary), strings.Repeat("a", 300)),
		wiretest.ClientFrame(wire.OpPing, "between"),
		wiretest.Masked(0x80, strings.Repeat("b", 10)),
	)
	for cut := range whole {
		bubble(t, func(t *testing.T, b *bubbled) {
			c, p := b.connect(nil, true)
			_, _ = p.Write(whole[:cut])
			synctest.Wait()
			if size := c.decoder.size(); size > partialSize+2*cut {
				t.Errorf("%d bytes are held for %d that came", size, cut)
			}
			p.Close()
			synctest.Wait()
			if len(c.messages) != 0 || !slices.Equal(c.causes(), []*Cause{Lost}) {
				t.Errorf("cut at %d: %d messages, %v", cut, len(c.messages), c.causes())
			}
		})
	}
}

// TestNothingIsKeptAfterTheEnd: of a connection that has ended only the answer to the
// close frame is waited for, not what its peer still sends.
func TestNothingIsKeptAfterTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, b *bubbled) {
		c, p := b.connect(nil, true)
		c.Fail(Overloaded)
		_, _ = p.Write(wiretest.Masked(byte(wire.OpBinary), strings.Repeat("x", 10_000)))
		synctest.Wait()
		if size := c.decoder.size(); size > partialSize {
			t.Errorf("%d bytes are kept", size)
		}
		_, _ = p.Write(wiretest.ClientFrame(wire.OpClose, "\x03\xf5"))
		synctest.Wait()
		select {
		case <-c.gone:
		default:
			t.Error("the answer to the close frame has not ended it")
		}
	})
}

// TestMessageMustEnd: a message that is begun and never ended holds memory, and is not
// waited for; one that comes slowly is.
func TestMessageMustEnd(t *testing.T) {
	bubble(t, func(t *testing.T, b *bubbled) {
		stalled, p := b.connect(nil, false)
		stalled.SetTimeout(20 * time.Second)
		half := wiretest.Masked(byte(wire.OpBinary), strings.Repeat("x", 5000))
		_, _ = p.Write(half)
		slow, q := b.connect(nil, true) // a pong would come inside a frame
		slow.SetTimeout(20 * time.Second)
		whole := wiretest.ClientFrame(wire.OpBinary, strings.Repeat("x", 60_000))
		for range 3 { // a minute each
			for rest := whole; len(rest) > 0; rest = rest[min(1000, len(rest)):] {
				_, _ = q.Write(rest[:min(1000, len(rest))])
				time.Sleep(time.Second)
			}
		}
		synctest.Wait()
		if slow.Cause() != nil || len(slow.messages) != 3 {
			t.Errorf("slow messages: %v, %d of 3", slow.Cause(), len(slow.messages))
		}
		if stalled.Cause() != Stalled {
			t.Errorf("a message that does not go on: %v", stalled.Cause())
		}
	})
}
