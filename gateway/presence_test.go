package gateway_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// present asks who is on a channel: "alice 2" for a user with two sessions.
func (c *client) present(channel string) []string {
	c.t.Helper()
	c.send(`{"type":"presence","ref":"who","channel":"%s"}`, channel)
	f := c.expect("presence")
	var members []string
	for _, m := range f["members"].([]any) {
		one := frame(m.(map[string]any))
		members = append(members, fmt.Sprint(one.str("user"), " ", one["sessions"]))
	}
	if f["count"] != float64(len(members)) || f.str("channel") != channel {
		c.t.Errorf("presence %v", f)
	}
	return members
}

// expectPresent returns once the answer is this. What another connection does is
// not in order with what this one asks.
func (c *client) expectPresent(want ...string) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		got := c.present("who:1")
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("present: %q, want %q", got, want)
		}
	}
}

// expectChange returns when the next frame tells that a user came or left.
func (c *client) expectChange(kind, user string) {
	c.t.Helper()
	if f := c.expect(kind); f.str("user") != user || f.str("channel") != "who:1" || len(f) != 3 {
		c.t.Errorf("got %v, want %s of %s", f, kind, user)
	}
}

func shortWindow(cfg *gateway.Config) { cfg.ResumeWindow = 3 * time.Second }

func TestPresence(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t, shortWindow)
	alice, _ := a.connect(t, "alice", "channel=who:1")
	alice.expectPresent("alice 1")
	bob, hello := b.connect(t, "bob", "channel=who:1")
	alice.expectChange("join", "bob")
	bob.expectPresent("alice 1", "bob 1")

	tab, _ := a.connect(t, "bob", "") // a second one comes and goes
	tab.send(`{"type":"subscribe","channel":"who:1"}`)
	tab.expect("subscribed")
	alice.expectPresent("alice 1", "bob 2")
	tab.send(`{"type":"unsubscribe","ref":1,"channel":"who:1"}`)
	tab.expect("unsubscribed")
	alice.expectPresent("alice 1", "bob 1")

	// The session moves, the connection breaks, the session is resumed: nobody notices.
	moved, again := a.connect(t, "bob", "channel=who:1&session="+hello.str("session"))
	bob.expectClose(4002)
	moved.conn.CloseNow()
	_, again = b.connect(t, "bob", "channel=who:1&session="+again.str("session"))
	if again["resumed"] != true {
		t.Fatalf("%v", again)
	}
	alice.expectPresent("alice 1", "bob 1")
	// It comes back without the channel.
	moved, _ = a.connect(t, "bob", "session="+again.str("session"))
	alice.expectChange("leave", "bob")
	alice.expectPresent("alice 1")
	moved.send(`{"type":"subscribe","channel":"who:1"}`)
	moved.expect("subscribed")
	alice.expectChange("join", "bob")

	left := time.Now()
	moved.conn.CloseNow() // for good: after the window
	alice.expectChange("leave", "bob")
	if took := time.Since(left); took < 3*time.Second || took > 15*time.Second {
		t.Errorf("left after %v", took)
	}
	carol, _ := b.connect(t, "carol", "channel=who:1")
	alice.expectChange("join", "carol")
	carol.conn.Close(1000, "")
	alice.expectChange("leave", "carol") // at once
	dave, _ := b.connect(t, "dave", "channel=who:1")
	alice.expectChange("join", "dave")
	if status, _ := a.call(t, "DELETE", "/v1/users/dave/sessions", ""); status != 200 {
		t.Errorf("disconnect: %d", status)
	}
	dave.expectClose(4003)
	alice.expectChange("leave", "dave")
	alice.quiet()
}

func TestPresenceRights(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t))
	in, _ := n.connect(t, "alice", "channel=who:1")
	watching, _ := n.connect(t, "bob", "") // one need not be there
	watching.expectPresent("alice 1")
	watching.send(`{"type":"presence","ref":1,"channel":"open:1"}`)
	watching.expectError("not_found")
	watching.send(`{"type":"presence","ref":1}`)
	watching.expectError("bad_request")
	none := n.dial(t, "connect=1&access_token="+token("eve", claims{"subscribe": nil}))
	none.expect("connected")
	none.send(`{"type":"presence","ref":1,"channel":"who:1"}`)
	none.expectError("forbidden")

	// Who may no longer subscribe leaves.
	in.send(`{"type":"refresh","ref":1,"token":"%s"}`, token("alice", claims{"subscribe": nil}))
	in.expect("unsubscribed")
	in.expect("refreshed")
	watching.expectPresent()
}

// TestPresenceAfterRedisLostItsData: it is there again, and clients are told to ask.
func TestPresenceAfterRedisLostItsData(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := startNode(t, "a", dialRedis(t, s.Addr()), shortWindow)
	b := startNode(t, "b", dialRedis(t, s.Addr()), shortWindow)
	alice, _ := a.connect(t, "alice", "channel=who:1")
	_, _ = b.connect(t, "bob", "channel=who:1")
	gone, _ := b.connect(t, "gone", "channel=who:1")
	alice.expectChange("join", "bob")
	alice.expectChange("join", "gone")
	gone.conn.CloseNow() // and Redis will not know
	s.CLI("FLUSHALL")
	for reset := false; !reset; {
		reset = alice.next().str("type") == "reset"
	}
	await(t, func() error {
		alice.send(`{"type":"presence","ref":"who","channel":"who:1"}`)
		for {
			f := alice.next()
			if f.str("type") == "error" { // it asks too often
				return fmt.Errorf("%v", f)
			}
			if f.str("type") != "presence" {
				continue
			}
			if got := fmt.Sprint(f["members"]); got != "[map[sessions:1 user:alice] map[sessions:1 user:bob]]" {
				return fmt.Errorf("present: %v", got)
			}
			return nil
		}
	})
}

// TestPresenceIsWrittenWhenRedisIsBack: sessions that end meanwhile leave.
func TestPresenceIsWrittenWhenRedisIsBack(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := startNode(t, "a", dialRedis(t, s.Addr()), shortWindow)
	alice, _ := a.connect(t, "alice", "channel=who:1")
	bob, _ := a.connect(t, "bob", "channel=who:1")
	carol, _ := a.connect(t, "carol", "channel=who:1")
	alice.expectChange("join", "bob")
	alice.expectChange("join", "carol")
	s.Pause()
	bob.conn.Close(1000, "")
	carol.send(`{"type":"unsubscribe","channel":"who:1"}`)
	await(t, func() error {
		if n := a.ended("client"); n != 1 {
			return fmt.Errorf("%v have closed", n)
		}
		return nil
	})
	s.Resume()
	left := map[string]bool{}
	for len(left) < 2 {
		if f := alice.next(); f.str("type") == "leave" {
			left[f.str("user")] = true
		}
	}
	alice.expectPresent("alice 1")
}

// TestFlappingIsNotTold: who leaves and is back within a second was never away, for
// others, and who leaves for good has left after one to two (finding M3).
func TestFlappingIsNotTold(t *testing.T) {
	t.Parallel()
	for range 20 { // on a slow machine it may be away for longer than that
		if flapping(t) {
			return
		}
	}
	t.Fatal("the machine is too slow to be back within a second")
}

// flapping reports whether all was fast enough to see it.
func flapping(t *testing.T) bool {
	a, b := startTwo(t)
	alice, _ := a.connect(t, "alice", "channel=who:1")
	eve, _ := b.connect(t, "eve", "channel=who:1")
	alice.expectChange("join", "eve")
	const leave, join = `{"type":"unsubscribe","channel":"who:1"}`, `{"type":"subscribe","channel":"who:1"}`
	const away = 800 * time.Millisecond // who is back by then was never told of
	for range 6 {
		begin := time.Now()
		eve.send("[%s]", strings.Repeat(leave+","+join+",", 9)+leave+","+join)
		for range 10 {
			eve.expect("subscribed")
			if time.Since(begin) > away {
				return false
			}
			begin = time.Now()
		}
	}
	alice.expectPresent("alice 1", "eve 1")
	tab, _ := a.connect(t, "eve", "") // it goes on where the other one stops
	begin := time.Now()
	eve.send(leave + " ")
	tab.send(join)
	tab.expect("subscribed")
	if time.Since(begin) > away {
		return false
	}
	alice.quiet()

	left := time.Now()
	tab.send(`{"type":"unsubscribe","ref":1,"channel":"who:1"}`)
	tab.expect("unsubscribed")
	alice.expectChange("leave", "eve")
	if took := time.Since(left); took < time.Second {
		t.Errorf("told after %v", took)
	}
	alice.expectPresent("alice 1")
	tab.send(join)
	alice.expectChange("join", "eve")
	return true
}

// TestWhoHasLeftIsListedUntilTold: what presence lists, and what join and leave tell
// after it, fit together.
func TestWhoHasLeftIsListedUntilTold(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t)
	eve, _ := b.connect(t, "eve", "channel=who:1")
	eve.send(`{"type":"unsubscribe","ref":1,"channel":"who:1"}`)
	eve.expect("unsubscribed")
	alice, _ := a.connect(t, "alice", "channel=who:1")
	if present := alice.present("who:1"); !slices.Equal(present, []string{"alice 1", "eve 0"}) {
		t.Skipf("too slow to see it: %q", present)
	}
	alice.expectChange("leave", "eve")
}

// TestManyAskWhoIsThere: however many ask, Redis is read once a second, and nobody's
// answer is older than what they were told (finding M2).
func TestManyAskWhoIsThere(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := startNode(t, "a", dialRedis(t, s.Addr()))
	other := startNode(t, "b", dialRedis(t, s.Addr()))
	alice, _ := n.connect(t, "alice", "channel=who:1")
	for i := range 5 { // what was told is in the answer
		bob := fmt.Sprint("bob", i)
		other.connect(t, bob, "channel=who:1")
		alice.expectChange("join", bob)
		if present := alice.present("who:1"); !slices.Contains(present, bob+" 1") {
			t.Errorf("after the join of %s: %q", bob, present)
		}
	}
	began := time.Now()
	reads := -commandCalls(t, s, "hgetall")
	const clients, asks = 8, 100
	var asking sync.WaitGroup
	for i := range clients {
		c, _ := n.connect(t, fmt.Sprint("reader", i), "")
		asking.Go(func() {
			for range asks {
				c.present("who:1")
			}
		})
	}
	asking.Wait()
	reads += commandCalls(t, s, "hgetall")
	// The connects look at sessions with HGETALL, too.
	if most := 2 + int(time.Since(began)/time.Second) + clients; reads > most {
		t.Errorf("%d answers cost %d readings in %v", clients*asks, reads, time.Since(began))
	}
}

// commandCalls returns how often Redis was given a command, by scripts too.
func commandCalls(t *testing.T, s *redistest.Server, command string) (calls int) {
	t.Helper()
	info, err := s.Client(t).Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, stat, _ := strings.Cut(info, "cmdstat_"+command+":calls=")
	fmt.Sscan(strings.Map(func(r rune) rune {
		if r == ',' {
			return ' '
		}
		return r
	}, stat), &calls)
	return calls
}
