package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

func membership(session, user string, generation uint64, payload string) Membership {
	return Membership{
		Channel: "*who:room", Session: session, User: user, Generation: generation,
		Payload: []byte(payload), Retention: keep,
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
	var wg sync.WaitGroup
	for s := range 12 {
		wg.Go(func() {
			session, user := fmt.Sprint("s", s), fmt.Sprint("u", s%3)
			for i := range rounds {
				n := []*node{p.a, p.b}[rand.N(2)]
				do, payload := n.Enter, "+"+user
				if i%2 == 1 {
					do, payload = n.Leave, "-"+user
				}
				if _, err := do(t.Context(), membership(session, user, uint64(i+1), payload)); err != nil {
					t.Errorf("round %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	users, err := p.b.Users(t.Context(), "*who:room")
	if err != nil || len(users) != 0 {
		t.Errorf("at the end: %v, %v", users, err)
	}
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

// testLateMembers: who no longer has a session changes nothing.
func testLateMembers(t *testing.T, p pair) {
	step := func(do func(context.Context, Membership) (bool, error), session, user string, generation uint64, want bool) {
		t.Helper()
		if got, err := do(t.Context(), membership(session, user, generation, "x")); err != nil || got != want {
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
