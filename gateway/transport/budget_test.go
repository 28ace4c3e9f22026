package transport

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// frozen returns connections of one transport whose peers do not read.
func frozen(t *testing.T, n int, limit int64) ([]*testConn, *Transport) {
	t.Helper()
	cfg := testConfig()
	cfg.Budget = NewBudget(limit)
	tr := newTransport(t, cfg)
	conns := make([]*testConn, n)
	for i := range conns {
		nc, peer := net.Pipe()
		c := &testConn{gone: make(chan struct{})}
		tr.Adopt(nc, nil, false, &c.Conn, c)
		t.Cleanup(func() {
			peer.Close()
			c.Cut()
			c.AwaitDrained()
		})
		conns[i] = c
	}
	return conns, tr
}

// text returns a frame of about n bytes in memory of its own.
func text(n int) []byte { return wiretest.ServerFrame(wire.OpText, string(make([]byte, n))) }

// within waits until a budget holds no more than it may, but for what was given up.
func within(t *testing.T, b *Budget) {
	t.Helper()
	await(t, func() bool { return b.excess() <= 0 })
}

// TestLargestOutboxGoesFirst: who holds most is given up when memory runs out, and
// who holds little is not (finding N1).
func TestLargestOutboxGoesFirst(t *testing.T) {
	conns, tr := frozen(t, 20, 8<<20)
	for range 1000 {
		for _, c := range conns[:3] {
			c.Send(text(20_000))
		}
		within(t, tr.cfg.Budget)
	}
	for i, c := range conns[3:] {
		c.Send(text(1000))
		if why := c.Cause(); why != nil {
			t.Errorf("connection %d, with next to nothing, ended: %s", i, why.Label)
		}
	}
	given := 0
	for _, c := range conns[:3] {
		if c.Cause() == Overloaded {
			given++
		}
	}
	if given < 2 {
		t.Errorf("%d were given up", given)
	}
}

// TestWhoHoldsLittleStays though what the largest hold comes back only when they are
// cut: one frame that is being sent, or half a message.
func TestWhoHoldsLittleStays(t *testing.T) {
	for name, hold := range map[string]func(c *testConn){
		"a frame that is being sent": func(c *testConn) {
			c.Send(text(300_000))
			await(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.inflight > 0 })
		},
		"what the owner holds": func(c *testConn) { c.Charge(300_000) },
	} {
		t.Run(name, func(t *testing.T) {
			conns, tr := frozen(t, 60, 8<<20)
			little, large := conns[40:], conns[:40]
			for _, c := range little {
				c.Send(text(1000))
			}
			for _, c := range large {
				hold(c)
			}
			await(t, func() bool { return tr.cfg.Budget.excess() <= 0 })
			given := 0
			for _, c := range large {
				if c.Cause() == Overloaded {
					given++
				}
			}
			if given == 0 || given > 25 {
				t.Errorf("%d of %d large ones were given up", given, len(large))
			}
			for i, c := range little {
				if why := c.Cause(); why != nil {
					t.Fatalf("connection %d, with next to nothing, ended: %s", i, why.Label)
				}
			}
			for _, c := range large {
				if c.Cause() != nil {
					c.Charge(-int(min(c.backlog.Load(), 300_000))) // what its owner does
					c.Cut()
				}
			}
		})
	}
}

// TestWhatIsShedIsFoundInOnePass: as many as must be, however many connections there
// are.
func TestWhatIsShedIsFoundInOnePass(t *testing.T) {
	const n = 3000
	conns, tr := frozen(t, n, n*(2000+entryMemory)*8/5)
	for range 2 {
		for _, c := range conns {
			c.Send(text(2000))
		}
	}
	await(t, func() bool { return tr.cfg.Budget.excess() <= 0 })
	ended := 0
	for _, c := range conns {
		if c.Cause() != nil {
			ended++
		}
	}
	if ended < n/3 || ended > 2*n/3 {
		t.Errorf("%d of %d were given up for half of what is held", ended, n)
	}
}

// TestSharedBytesAreCountedOnce: what many outboxes hold together costs what it costs.
func TestSharedBytesAreCountedOnce(t *testing.T) {
	const limit = 8 << 20
	conns, tr := frozen(t, 100, limit)
	for range 50 {
		shared := text(20_000)
		for _, c := range conns {
			c.Send(shared)
		}
	}
	if used, want := tr.cfg.Budget.Used(), int64(50*(20_000+entryMemory*100)); used < 50*20_000 || used > want*3/2 {
		t.Errorf("%d bytes are held, want about %d", used, want)
	}
	for i, c := range conns {
		if c.Cause() != nil {
			t.Fatalf("connection %d ended", i)
		}
		c.Cut()
	}
	await(t, func() bool { return tr.cfg.Budget.Used() == 0 })
	for i := range tr.cfg.Budget.shared {
		if s := &tr.cfg.Budget.shared[i]; len(s.kept) != 0 {
			t.Errorf("%d runs of bytes are still counted", len(s.kept))
		}
	}
}

// TestNewConnectionsAreRefusedBeforeOldOnesAreGivenUp tells when a budget is full.
func TestNewConnectionsAreRefusedBeforeOldOnesAreGivenUp(t *testing.T) {
	conns, tr := frozen(t, 2, 8<<20)
	for i := 0; !tr.Full(); i++ {
		conns[i%2].Send(text(20_000))
		if conns[0].Cause() != nil || conns[1].Cause() != nil {
			t.Fatal("given up before new ones were refused")
		}
	}
	conns[0].Cut()
	conns[1].Cut()
	await(t, func() bool { return !tr.Full() })
}

func TestPagesWaitInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(pageShare * 100)
		if err := b.Acquire(t.Context(), 80); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []int
		acquire := func(ctx context.Context, i int, n int64) {
			if err := b.Acquire(ctx, n); err == nil {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			} else if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		gone, cancel := context.WithCancel(t.Context())
		go acquire(t.Context(), 1, 60)
		synctest.Wait()
		go acquire(gone, 2, 60)
		synctest.Wait()
		go acquire(t.Context(), 3, 10) // has room, and waits for its turn
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("%v did not wait", order)
		}
		b.Release(80)
		synctest.Wait()
		if !slices.Equal(order, []int{1}) {
			t.Errorf("got %v, want the first", order)
		}
		cancel()
		synctest.Wait()
		if !slices.Equal(order, []int{1, 3}) {
			t.Errorf("got %v, want the one behind it that gave up", order)
		}
	})
}

// TestPagesNeverHoldMoreThanTheirPart with many at once, some of which give up.
func TestPagesNeverHoldMoreThanTheirPart(t *testing.T) {
	const part = 100
	b := NewBudget(pageShare * part)
	var held atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if j%7 == 0 {
					cancel()
				}
				n := int64(1 + (i*j)%60)
				if b.Acquire(ctx, n) == nil {
					if held.Add(n) > part {
						t.Errorf("more than %d is held", part)
					}
					held.Add(-n)
					b.Release(n)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if b.Used() != 0 || len(b.waiting) != 0 {
		t.Errorf("%d bytes are left, %d wait", b.Used(), len(b.waiting))
	}
	if err := b.Acquire(t.Context(), 10*part); err != nil { // alone
		t.Error(err)
	}
	b.Release(10 * part)
}

// TestMessagesThatAreHandledHaveAPartOfTheirOwn: what outboxes hold takes nothing of it,
// and one message is always let through.
func TestMessagesThatAreHandledHaveAPartOfTheirOwn(t *testing.T) {
	b := NewBudget(8000)
	b.held.Add(1 << 20)
	if !b.TryHandle(1500) || b.TryHandle(1500) || !b.TryHandle(500) {
		t.Error("not 2,000 bytes of 8,000 are for messages")
	}
	b.Handled(1500)
	b.Handled(500)
	if !b.TryHandle(1<<20) || b.TryHandle(1) {
		t.Error("a large message is not let through alone")
	}
	b.Handled(1 << 20)
}
