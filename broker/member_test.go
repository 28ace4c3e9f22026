package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

func membership(session, user string, generation uint64) Membership {
	return Membership{
		Channel: "*who:room", Session: session, User: user, Generation: generation,
		Payload: []byte("+" + user), Patience: 5 * time.Millisecond, Retention: keep,
	}
}

// departures takes those of the lane that the tests' channel is in.
func (n *node) departures(ctx context.Context, while time.Duration) ([]Departure, error) {
	return n.Departures(ctx, n.layout.laneOf("*who:room"), while)
}

// depart tells of those that have departed, as a node does, until ctx is done. What
// fails on a slow machine is tried again, as nodes do.
func (n *node) depart(ctx context.Context, t testing.TB) {
	for ctx.Err() == nil {
		all, err := n.departures(ctx, time.Second)
		for _, d := range all {
			_, failed := n.Depart(ctx, d, []byte("-"+d.User), keep)
			err = errors.Join(err, failed)
		}
		if err != nil && ctx.Err() == nil {
			t.Logf("departures: %v", err)
		}
	}
}

// testMembers: sessions come and go on two nodes at once, and what both nodes
// are told of each user alternates.
func testMembers(t *testing.T, p pair) {
	onA, onB := p.a.subscribe(t, "*who:room"), p.b.subscribe(t, "*who:room")
	rounds := 40
	if p.slow {
		rounds = 10
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var telling, wg sync.WaitGroup
	for _, n := range []*node{p.a, p.b} {
		telling.Go(func() { n.depart(ctx, t) })
	}
	for s := range 12 {
		wg.Go(func() {
			session, user := fmt.Sprint("s", s), fmt.Sprint("u", s%3)
			for i := range rounds {
				n := []*node{p.a, p.b}[rand.N(2)]
				do := n.Enter
				if i%2 == 1 {
					do = n.Leave
				}
				_, err := do(t.Context(), membership(session, user, uint64(i+1)))
				for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
					_, err = do(t.Context(), membership(session, user, uint64(i+1)))
				}
				if err != nil {
					t.Errorf("round %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "everybody has gone", func() bool {
		users, err := p.b.Users(t.Context(), "*who:room")
		return err == nil && len(users) == 0
	})
	stop()
	telling.Wait()
	last := p.b.publish(t, "*who:room", "end", keep)
	a, b := onA.waitFor(t, last), onB.waitFor(t, last)
	if strings.Join(payloads(a), " ") != strings.Join(payloads(b), " ") {
		t.Error("two nodes were told different stories")
	}
	present := make(map[string]bool)
	for _, e := range payloads(a[:len(a)-1]) {
		if user, came := e[1:], e[0] == '+'; present[user] == came {
			t.Fatalf("told %s of a user for whom that was so", e)
		} else {
			present[user] = came
		}
	}
	for user, is := range present {
		if is {
			t.Errorf("%s has gone, and nobody was told", user)
		}
	}
}

// testDepartures: of a user who has left is told once, by another node if the
// first one dies, and not if the user is back (finding M3).
func testDepartures(t *testing.T, p pair) {
	const patience, while = 300 * time.Millisecond, 400 * time.Millisecond
	told := p.a.subscribe(t, "*who:room")
	m := membership("s1", "alice", 1)
	m.Patience = patience
	step := func(do func(context.Context, Membership) (bool, error), want bool) {
		t.Helper()
		if got, err := do(t.Context(), m); err != nil || got != want {
			t.Fatalf("%v, %v", got, err)
		}
	}
	taken := func(n *node) (d Departure) {
		t.Helper()
		eventually(t, "alice is taken", func() bool {
			all, err := n.departures(t.Context(), while)
			if err != nil || len(all) == 0 {
				return false
			}
			d = all[0]
			return true
		})
		if d.Channel != "*who:room" || d.User != "alice" {
			t.Fatalf("taken: %+v", d)
		}
		return d
	}
	depart := func(n *node, d Departure, want bool) {
		t.Helper()
		if got, err := n.Depart(t.Context(), d, []byte("-alice"), keep); err != nil || got != want {
			t.Fatalf("departs: %v, %v", got, err)
		}
	}
	step(p.a.Enter, true)
	step(p.a.Leave, true)
	if users, err := p.b.Users(t.Context(), "*who:room"); err != nil || fmt.Sprint(users) != "map[alice:0]" {
		t.Errorf("until it is told: %v, %v", users, err)
	}
	step(p.b.Enter, false) // back on another node
	left := time.Now()
	step(p.b.Leave, true)
	first := taken(p.a)
	if waited := time.Since(left); waited < patience {
		t.Errorf("taken after %v", waited)
	}
	step(p.a.Enter, false) // back while it was about to be told
	step(p.a.Leave, true)
	depart(p.a, first, false) // that was of the time before
	first = taken(p.a)        // and this node dies now
	second := taken(p.b)
	depart(p.a, first, false) // or was only slow
	depart(p.b, second, true)
	depart(p.b, second, false)
	if users, err := p.b.Users(t.Context(), "*who:room"); err != nil || len(users) != 0 {
		t.Errorf("once it is told: %v, %v", users, err)
	}
	if all, err := p.b.departures(t.Context(), while); err != nil || len(all) != 0 {
		t.Errorf("left over: %v, %v", all, err)
	}
	step(p.b.Enter, true)
	last := p.b.publish(t, "*who:room", "end", keep)
	if got := strings.Join(payloads(told.waitFor(t, last)), " "); got != "+alice -alice +alice end" {
		t.Errorf("told: %s", got)
	}
}

// testLateMembers: who no longer has a session changes nothing.
func testLateMembers(t *testing.T, p pair) {
	step := func(do func(context.Context, Membership) (bool, error), session, user string, generation uint64, want bool) {
		t.Helper()
		if got, err := do(t.Context(), membership(session, user, generation)); err != nil || got != want {
			t.Errorf("%s of %s, generation %d: %v, %v", session, user, generation, got, err)
		}
	}
	step(p.a.Enter, "s1", "al ice", 1, true)
	step(p.a.Enter, "s1", "al ice", 1, false)
	step(p.b.Enter, "s1", "al ice", 3, false) // it has moved
	step(p.a.Leave, "s1", "al ice", 2, false) // too late
	step(p.b.Enter, "s2", "al ice", 1, false)
	step(p.b.Enter, "s3", "bob", 1, true)
	users, err := p.a.Users(t.Context(), "*who:room")
	if err != nil || len(users) != 2 || users["al ice"] != 2 || users["bob"] != 1 {
		t.Errorf("users %v, %v", users, err)
	}
	members, err := p.a.Members(t.Context(), "*who:room")
	if err != nil || len(members) != 3 {
		t.Errorf("members %v, %v", members, err)
	}
	step(p.b.Leave, "s1", "al ice", AnyGeneration, false)
	step(p.b.Leave, "s1", "al ice", AnyGeneration, false)
	step(p.b.Leave, "s2", "al ice", AnyGeneration, true)
	step(p.b.Leave, "s2", "al ice", AnyGeneration, false)
	step(p.a.Leave, "s3", "bob", 1, true)
	for _, want := range []bool{true, false} {
		if alone, err := p.a.Alone(t.Context(), "*who:room", keep.TTL); alone != want || err != nil {
			t.Errorf("alone: %v, %v", alone, err)
		}
	}
}
