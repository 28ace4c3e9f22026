package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wssgateway/broker"
	"wssgateway/gateway/transport"
	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// shardOfTest returns a shard that nobody runs, of a hub without a broker.
func shardOfTest(testing.TB) *shard {
	m := newMetrics(prometheus.NewRegistry(), func() int { return 0 })
	return newShard(newHub(nil, m, slog.New(slog.DiscardHandler)))
}

// connOn returns a connection of a shard that nobody reads.
func connOn(t testing.TB, s *shard, nc net.Conn, outbox int) *conn {
	t.Helper()
	budget := transport.NewBudget(1 << 30)
	tr, err := transport.New(transport.Config{
		Outbox: outbox, Budget: budget, Logger: s.hub.log, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{hub: s.hub, metrics: s.hub.metrics, transport: tr, budget: budget, conns: newConns(), log: s.hub.log}
	g.cfg.Limits.Outbox = Size(outbox)
	c := &conn{shard: s, gw: g}
	tr.Adopt(nc, nil, false, &c.socket, c)
	return c
}

// rest ends a connection, and returns the frames that its peer gets until then.
func (c *conn) rest(t testing.TB, peer net.Conn) [][]byte {
	t.Helper()
	go c.fail(&transport.Cause{Code: wire.CloseNormal})
	var frames [][]byte
	for {
		f := wiretest.ReadFrames(t, peer, 1)
		if len(f) == 0 || wire.Opcode(f[0][0]&0x0F) == wire.OpClose {
			c.socket.Cut()
			return frames
		}
		frames = append(frames, f...)
	}
}

func frameItem(ch *channel, n uint64) item {
	return item{kind: itemFrame, channel: ch, id: broker.ID{MS: n}, frame: wiretest.ServerFrame(1, fmt.Sprint(n))}
}

func resetItem(ch *channel, n uint64) item {
	return item{kind: itemReset, channel: ch, id: broker.ID{MS: n}, frame: wiretest.ServerFrame(1, fmt.Sprint("reset ", n))}
}

// TestHeldMember goes through what a member is handed during a replay, and what
// it gets of that afterwards.
func TestHeldMember(t *testing.T) {
	const at = 4 // where the member was attached
	big := strings.Repeat("x", 1000)
	for _, test := range []struct {
		name string
		kept string // messages by number, rN: a reset to N, x: one without id, large
		seen uint64 // how far the replay, or the client, has got
		want []string
	}{
		{"nothing", "", at, nil},
		{"all", "5 6", at, []string{"5", "6"}},
		{"a client that is ahead", "5 6 7", 6, []string{"7"}},
		{"a client that is ahead of all", "5 6 7", 9, nil},
		{"a gap", "5 6 r10 11", at, []string{"reset 10", "11"}},
		{"a gap before a client that is ahead", "r10 11 12", 6, []string{"reset 10", "11", "12"}},
		{"ids that go back", "5 r2 3", at, []string{"reset 2", "3"}},
		{"ids that go back behind a client that is ahead", "5 r2 3 4", 9, []string{"reset 2", "3", "4"}},
		{"two resets", "5 r7 8 r2 3", at, []string{"reset 2", "3"}},
		{"too much, then a reset", "x x x r9 10", at, []string{"reset 9", "10"}},
		{"a reset, then too much", "5 r9 x x x", at, []string{"reset 9"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, ch := shardOfTest(t), &channel{name: "room:1", history: true}
			nc, peer := wiretest.SmallPair(t)
			defer peer.Close()
			c := connOn(t, s, nc, 4000)
			m := &member{conn: c, channel: ch, after: broker.ID{MS: at}, catchUp: &catchUp{from: broker.ID{MS: at}}}
			queue := []item{{kind: itemJoin, channel: ch, member: m}}
			for _, word := range strings.Fields(test.kept) {
				var n uint64
				switch {
				case word == "x":
					queue = append(queue, item{kind: itemFrame, channel: ch, frame: wiretest.ServerFrame(1, big)})
				case word[0] == 'r':
					fmt.Sscan(word[1:], &n)
					queue = append(queue, resetItem(ch, n))
				default:
					fmt.Sscan(word, &n)
					queue = append(queue, frameItem(ch, n))
				}
			}
			s.deliver(queue)
			s.deliver([]item{{kind: itemRelease, channel: ch, member: m, id: broker.ID{MS: test.seen}}})
			if m.held() { // too much was kept: the replay of nothing ends at once
				<-s.wake
				s.deliver(s.queue)
			}
			if m.held() {
				t.Errorf("still held, with %d", len(m.kept))
			}
			after := uint64(100)
			s.deliver([]item{frameItem(ch, after)})
			want := append(slices.Clone(test.want), fmt.Sprint(after))
			var got []string
			for _, f := range wiretest.ReadFrames(t, peer, len(want)) {
				got = append(got, string(f[2:]))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestMembersLeaveInAnyOrder: whoever leaves, also a second time, all others stay.
func TestMembersLeaveInAnyOrder(t *testing.T) {
	s, ch := shardOfMany(t, 50)
	left := make(map[*member]bool)
	all := slices.Clone(s.members[ch])
	for _, i := range rand.Perm(2 * len(all)) {
		m := all[i/2]
		left[m] = true
		s.deliver([]item{{kind: itemLeave, channel: ch, member: m}})
		if got := len(s.members[ch]); got != len(all)-len(left) {
			t.Fatalf("%d members, want %d", got, len(all)-len(left))
		}
		for _, m := range s.members[ch] {
			if left[m] {
				t.Fatal("a member that has left is still one")
			}
		}
	}
}

// TestNothingComesAfterLeave: once a member has left, its replay sends nothing,
// also if it was about to.
func TestNothingComesAfterLeave(t *testing.T) {
	s := shardOfTest(t)
	nc, peer := net.Pipe()
	c := connOn(t, s, nc, 1<<20)
	m := &member{conn: c, channel: &channel{name: "room:1"}, catchUp: &catchUp{}}
	c.socket.Send(wiretest.ServerFrame(1, "before"))
	m.leave()
	if !m.sendReplay(stretch{frames: wiretest.ServerFrame(1, "replayed"), at: broker.ID{MS: 1}}) || !m.sent.IsZero() {
		t.Errorf("a replay of who has left goes on, up to %v", m.sent)
	}
	c.socket.Send(wiretest.ServerFrame(1, "unsubscribed"))
	got := wiretest.ReadFrames(t, peer, 2)
	if got = append(got, c.rest(t, peer)...); len(got) != 2 || string(got[1][2:]) != "unsubscribed" {
		t.Errorf("got %q", got)
	}
}

// TestReplaysShareTheOutbox: a page goes out if the outbox is empty, or has room
// for it beside what comes by itself. One that does not fit ends nothing.
func TestReplaysShareTheOutbox(t *testing.T) {
	s := shardOfTest(t)
	nc, peer := wiretest.SmallPair(t)
	const outbox, chunk = 400 << 10, 100 << 10
	c := connOn(t, s, nc, outbox)
	frame := wiretest.ServerFrame(1, strings.Repeat("x", chunk))
	page := stretch{frames: frame}
	m := &member{conn: c, channel: &channel{name: "room:1"}, catchUp: &catchUp{}}
	sent := 0
	for m.sendReplay(page) { // the kernel takes some
		if sent++; sent > 100 {
			t.Fatal("there is always room for more")
		}
	}
	c.socket.Send(frame) // what comes by itself still fits
	if got := wiretest.ReadFrames(t, peer, sent+1); len(got) != sent+1 {
		t.Errorf("%d of %d came", len(got), sent+1)
	}
	c.socket.AwaitDrained()
	if !m.sendReplay(stretch{frames: wiretest.ServerFrame(1, strings.Repeat("x", 2*outbox))}) {
		t.Error("a page does not go out though the outbox is empty")
	}
	if why := c.socket.Cause(); why != nil {
		t.Errorf("ended: %s", why.Label)
	}
	peer.Close()
	c.socket.Cut()
}

// TestMembersOfAChannel goes through joining and leaving in one round.
func TestMembersOfAChannel(t *testing.T) {
	s, ch, other := shardOfTest(t), &channel{name: "room:1"}, &channel{name: "room:2"}
	var members []*member
	var peers []net.Conn
	for range 3 {
		nc, peer := wiretest.SmallPair(t)
		defer peer.Close()
		members = append(members, &member{conn: connOn(t, s, nc, 1<<20), channel: ch})
		peers = append(peers, peer)
	}
	first := members[0]
	inOther := &member{conn: first.conn, channel: other}
	join := func(m *member) item { return item{kind: itemJoin, channel: m.channel, member: m} }
	leave := func(m *member, last string) item {
		return item{kind: itemLeave, channel: m.channel, member: m, frame: wiretest.ServerFrame(1, last)}
	}
	s.deliver([]item{
		join(first), frameItem(ch, 1), join(members[1]), join(inOther), frameItem(ch, 2), frameItem(other, 7), frameItem(ch, 3),
		leave(first, "bye"), join(members[2]), frameItem(ch, 4), frameItem(other, 8),
		leave(members[1], "bye"), leave(members[1], "again"), leave(members[2], "bye"), leave(inOther, "bye"), frameItem(ch, 5),
	})
	if len(s.members) != 0 {
		t.Errorf("members are left: %v", s.members)
	}
	for i, want := range []string{"1 2 3 7 bye 8 bye", "2 3 4 bye again", "4 bye"} {
		var got []string
		for _, f := range members[i].conn.rest(t, peers[i]) {
			got = append(got, string(f[2:]))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("connection %d got %q, want %q", i, got, want)
		}
	}
}

// nullConn is a connection that takes everything.
type nullConn struct {
	net.Conn
	f *os.File
}

func (c nullConn) SyscallConn() (syscall.RawConn, error) { return c.f.SyscallConn() }

// shardOfMany returns a shard with n members of a channel that take everything.
func shardOfMany(t testing.TB, n int) (*shard, *channel) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	s, ch := shardOfTest(t), &channel{name: "room:1", history: true}
	for range n {
		c := connOn(t, s, nullConn{f: null}, 1<<20)
		s.join(&member{conn: c, channel: ch})
	}
	return s, ch
}

func TestDeliveryDoesNotAllocate(t *testing.T) {
	const members = 1000
	s, ch := shardOfMany(t, members)
	it := frameItem(ch, 1)
	it.at = time.Now()
	round := []item{it}
	allocs := testing.AllocsPerRun(100, func() { s.deliver(round) })
	if allocs > 0 && !raceDetector {
		t.Errorf("%v allocations for a message to %d members", allocs, members)
	}
	backlog := []item{it, it, it, it}
	allocs = testing.AllocsPerRun(100, func() { s.deliver(backlog) })
	if allocs > 1 && !raceDetector {
		t.Errorf("%v allocations for four messages, want that of joining them", allocs)
	}
}

// TestShardBoundsWhatWaits: whoever brings more than that waits.
func TestShardBoundsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := shardOfTest(t), &channel{name: "room:1"}
		s.enqueue(item{kind: itemFrame, channel: ch, frame: make([]byte, queueLimit+1)})
		waits := true
		go func() { s.enqueue(frameItem(ch, 1)); waits = false }()
		synctest.Wait()
		if !waits {
			t.Error("did not wait")
		}
		ctx, stop := context.WithCancel(t.Context())
		go s.run(ctx)
		synctest.Wait()
		if waits {
			t.Error("waits for a queue that was taken")
		}
		stop()
	})
}

// TestReplayedPage: what a client gets of a page of the stream, when messages are
// gone that were there when the replay began.
func TestReplayedPage(t *testing.T) {
	const from, to = 5, 8
	for _, test := range []struct {
		name    string
		page    string // messages by number, each after that before it on the channel
		follows bool
		want    []string
		next    uint64
	}{
		{"all", "5<6 6<7 7<8", true, []string{"6", "7", "8"}, 8},
		{"some", "5<6 6<7", true, []string{"6", "7"}, 7},
		{"more", "5<6 6<7 7<8 8<9", true, []string{"6", "7", "8"}, 8},
		{"the first is gone", "6<7 7<8", true, []string{"reset 6", "7", "8"}, 8},
		{"the first is gone, as was told", "6<7 7<8", false, []string{"7", "8"}, 8},
		{"one is gone", "5<6 7<8", false, []string{"6", "reset 7", "8"}, 8},
		{"all are gone", "", true, []string{"reset 8"}, 8},
		{"all are gone, as was told", "", false, nil, 8},
		{"all are gone, and there are newer ones", "9<10 10<11", true, []string{"reset 8"}, 8},
		{"the last ones are gone, and there are newer ones", "5<6 9<10", true, []string{"6", "reset 8"}, 8},
		{"there was none, but there are newer ones", "5<9", true, nil, 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := shardOfTest(t)
			nc, peer := wiretest.SmallPair(t)
			defer peer.Close()
			c := connOn(t, s, nc, 1<<20)
			m := &member{conn: c, channel: &channel{name: "room:1", history: true}, catchUp: &catchUp{}}
			var page []broker.Message
			for _, word := range strings.Fields(test.page) {
				var prev, id uint64
				fmt.Sscanf(word, "%d<%d", &prev, &id)
				page = append(page, broker.Message{ID: broker.ID{MS: id}, Prev: broker.ID{MS: prev}, Payload: `t,"data":0`})
			}
			r := c.stretchOf(m.channel, page, broker.ID{MS: from}, broker.ID{MS: to}, test.follows)
			if r.at.MS != test.next || !r.follows || !m.sendReplay(r) || m.sent != r.at {
				t.Errorf("goes on at %v, follows %v; has sent up to %v", r.at, r.follows, m.sent)
			}
			var got []string
			for _, f := range c.rest(t, peer) {
				id := regexp.MustCompile(`"(id|last)":"(\d+)-0"`).FindStringSubmatch(string(f))
				if got = append(got, id[2]); id[1] == "last" {
					got[len(got)-1] = "reset " + id[2]
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestKeptIsInTheBudget: what is kept for members that catch up, and do not take their
// replay.
func TestKeptIsInTheBudget(t *testing.T) {
	const members, outbox = 300, 1 << 20
	s, ch := shardOfTest(t), &channel{name: "room:1", history: true}
	budget := transport.NewBudget(256 << 20)
	tr, err := transport.New(transport.Config{Outbox: outbox, Budget: budget, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{hub: s.hub, metrics: s.hub.metrics, transport: tr, conns: newConns(), log: s.hub.log, budget: budget}
	g.cfg.Limits.Outbox = outbox
	for range members {
		nc, peer := net.Pipe()
		defer peer.Close()
		c := &conn{shard: s, gw: g}
		tr.Adopt(nc, nil, false, &c.socket, c)
		m := &member{conn: c, channel: ch, after: broker.ID{MS: 1}, catchUp: &catchUp{from: broker.ID{MS: 1}}}
		s.deliver([]item{{kind: itemJoin, channel: ch, member: m}})
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for n := range 300 {
		s.deliver([]item{{kind: itemFrame, channel: ch, id: broker.ID{MS: uint64(n + 2)}, frame: wiretest.ServerFrame(1, "0123456789012345678901234567890123456789")}})
	}
	grown := heap() - before
	if used := budget.Used(); used < grown*2/3 || grown > members*2*keptLimit {
		t.Errorf("%d KiB are kept for each, %d are accounted", grown>>10/members, used>>10/members)
	}
	for _, m := range slices.Clone(s.members[ch]) {
		s.deliver([]item{{kind: itemLeave, channel: ch, member: m}})
	}
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes are accounted when all have left", used)
	}
}
