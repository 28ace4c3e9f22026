package gateway

import (
	"context"
	"fmt"
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"wssgateway/gateway/wire/wiretest"
)

// meteredConn takes everything, and calls back before each write.
type meteredConn struct {
	nullConn
	before func()
}

func (c meteredConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.nullConn.SyscallConn()
	return meteredRaw{raw, c.before}, err
}

type meteredRaw struct {
	syscall.RawConn
	before func()
}

func (r meteredRaw) Write(f func(uintptr) bool) error {
	r.before()
	return r.RawConn.Write(f)
}

// heapLive returns the bytes of the heap that are in use. It collects the garbage first:
// how much of that there is at a time is up to the scheduler.
func heapLive() int {
	runtime.GC()
	s := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(s)
	return int(s[0].Value.Uint64())
}

// backlog enqueues frames of a kilobyte, on each channel in turn.
func (s *shard) backlog(channels []*channel, frames int) {
	data := strings.Repeat("x", 1000)
	for i := range frames {
		it := frameItem(channels[i%len(channels)], uint64(i+1))
		it.frame = wiretest.ServerFrame(1, fmt.Sprint(i)+data)
		s.enqueue(it)
	}
}

// TestABacklogIsDeliveredInPieces: connections with several channels get copies, and
// all of them together must not have a copy of all that has queued up (finding N1).
// It is not parallel: it measures the memory of the process.
func TestABacklogIsDeliveredInPieces(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s := shardOfTest(t)
	writes, most := 0, 0
	look := func() {
		if writes++; writes%100 == 1 {
			most = max(most, heapLive())
		}
	}
	channels := make([]*channel, 20)
	for i := range channels {
		channels[i] = &channel{name: fmt.Sprint("room:", i), history: true}
	}
	for range 50 {
		c := connOn(t, s, meteredConn{nullConn{f: null}, look}, 1<<20)
		for _, ch := range channels {
			s.join(&member{conn: c, channel: ch})
		}
	}
	s.backlog(channels, 5000)
	before := heapLive()
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { s.run(ctx); close(over) }()
	s.await()
	stop()
	<-over
	if got := most - before; got > 2*copyLimit {
		t.Errorf("%d MiB were taken to deliver 5 MiB to 50 connections", got>>20)
	}
}

// TestABacklogMakesRoomAsItGoes: what waits to be let into the queue, the link's
// reader among it, waits for a round and not for all that has queued up (finding B1).
func TestABacklogMakesRoomAsItGoes(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s, ch := shardOfTest(t), &channel{name: "room:1", history: true}
	var waiting []int // before each write
	c := connOn(t, s, meteredConn{nullConn{f: null}, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		waiting = append(waiting, s.waiting)
	}}, 1<<20)
	s.join(&member{conn: c, channel: ch})
	s.backlog([]*channel{ch}, queueLimit/2000)
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { s.run(ctx); close(over) }()
	s.await()
	stop()
	<-over
	if len(waiting) < 10 {
		t.Fatalf("%d rounds", len(waiting))
	}
	for i := 1; i < len(waiting); i++ {
		if less := waiting[i-1] - waiting[i]; less < roundLimit/2 || less > 2*roundLimit {
			t.Errorf("round %d made room for %d bytes", i, less)
		}
	}
}

// TestOnlyFramesWaitForTheQueue: who connects, leaves or asks is not held up by
// what floods a shard beyond its turn (finding N1).
func TestOnlyFramesWaitForTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := shardOfTest(t), &channel{name: "room:1"}
		s.enqueue(item{kind: itemFrame, channel: ch, frame: make([]byte, queueLimit+1)})
		for _, kind := range []itemKind{itemReset, itemJoin, itemRelease, itemLeave, itemBarrier} {
			s.enqueue(item{kind: kind, channel: ch}) // would never return
		}
	})
}

// TestTheQueueCountsWhatItemsCost: many small messages take more memory than their
// bytes (finding N1).
func TestTheQueueCountsWhatItemsCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := shardOfTest(t), &channel{name: "room:1"}
		n := 0
		go func() {
			for s.enqueue(frameItem(ch, 1)); n < 10_000_000; s.enqueue(frameItem(ch, 1)) {
				n++
			}
		}()
		synctest.Wait()
		if n > queueLimit/itemCost {
			t.Errorf("%d small messages wait", n)
		}
		ctx, stop := context.WithCancel(t.Context())
		n = 10_000_000
		go s.run(ctx)
		synctest.Wait()
		stop()
	})
}

// TestKeptIsBoundedByConnection: during replays a connection has so much kept in all
// its channels together (finding H5).
func TestKeptIsBoundedByConnection(t *testing.T) {
	s := shardOfTest(t)
	nc, peer := wiretest.SmallPair(t)
	defer peer.Close()
	const outbox = 64 << 10
	c := connOn(t, s, nc, outbox)
	defer c.socket.Cut()
	var members []*member
	var channels []*channel
	for i := range 16 {
		ch := &channel{name: fmt.Sprint("room:", i), history: true}
		m := &member{conn: c, channel: ch, catchUp: &catchUp{}}
		s.deliver([]item{{kind: itemJoin, channel: ch, member: m}})
		members, channels = append(members, m), append(channels, ch)
	}
	s.backlog(channels, 500)
	s.deliver(s.queue)
	kept := 0
	for _, m := range members {
		for _, it := range m.kept {
			kept += it.cost()
		}
	}
	if kept > outbox/2 || kept != s.kept[c] {
		t.Errorf("%d bytes are kept, %d are counted, want %d at most", kept, s.kept[c], outbox/2)
	}
	for _, m := range members {
		s.deliver([]item{{kind: itemLeave, channel: m.channel, member: m}})
	}
	if len(s.kept) > 0 {
		t.Errorf("who has left is still counted: %v", s.kept)
	}
}
