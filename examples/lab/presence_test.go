package lab_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"wssgateway/client"
	"wssgateway/examples/lab"
)

const (
	visitors = 200
	chaos    = time.Minute
)

// TestPresenceIsTrueInTheEnd: for a while 200 clients come, go, are cut off,
// resume elsewhere and vanish, on three nodes one of which is killed and comes
// back. Whoever watches hears of each user in turn that it joined and that it
// left, and in the end every node knows who is there.
func TestPresenceIsTrueInTheEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), chaos+enough)
	defer cancel()
	l := startLab(ctx, t, "one", "two", "three")
	watchers := []*watcher{watch(ctx, t, l.Nodes[1], "watcher-2"), watch(ctx, t, l.Nodes[2], "watcher-3")}
	people := make([]*wanderer, visitors)
	for i := range people {
		people[i] = &wanderer{user: fmt.Sprint("user-", i), nodes: l.Nodes}
		t.Cleanup(people[i].stop)
	}
	var acting sync.WaitGroup
	until := time.Now().Add(chaos)
	for _, p := range people {
		acting.Go(func() {
			for ctx.Err() == nil && time.Now().Before(until) {
				p.act(ctx, t)
				_ = lab.Pause(ctx, rand.N(1500*time.Millisecond))
			}
		})
	}
	if err := errors.Join(lab.Pause(ctx, chaos/3), l.Nodes[0].Kill(), lab.Pause(ctx, chaos/6), l.Nodes[0].Start()); err != nil {
		t.Fatal(err)
	}
	acting.Wait()

	truth := []string{"watcher-2", "watcher-3"}
	for i, p := range people {
		if i%2 == 0 {
			p.stop()
			continue
		}
		p.arrive(ctx, t)
		truth = append(truth, p.user)
	}
	slices.Sort(truth)
	over := time.Now()
	var got []string
	for _, n := range l.Nodes {
		await(ctx, t, n.Name+" knows the truth", func() bool {
			got = ask(ctx, t, n)
			return slices.Equal(got, truth) || time.Since(over) > lease+window+20*time.Second
		})
		if !slices.Equal(got, truth) {
			t.Errorf("%s says that %d are there, want %d: %v", n.Name, len(got), len(truth), difference(got, truth))
		}
	}
	t.Logf("recovered in %v: every node knows who is there", time.Since(over).Round(time.Millisecond))
	for _, w := range watchers {
		await(ctx, t, w.user+" has heard the end", func() bool { return w.count("+") == len(truth)-1-watchersBefore(w) })
		changes := 0
		for _, p := range people {
			story := w.story(p.user)
			changes += len(story)
			for i := range story {
				if want := "+-"[i%2]; story[i] != want {
					t.Errorf("%s heard of %s: %s", w.user, p.user, story)
					break
				}
			}
		}
		t.Logf("%s heard of %d changes", w.user, changes)
		if changes < visitors {
			t.Errorf("nothing happened")
		}
	}
}

// watchersBefore returns how many watchers were there before w, of whom it did
// not hear.
func watchersBefore(w *watcher) int {
	if w.user == "watcher-3" {
		return 1
	}
	return 0
}

func difference(got, want []string) (d []string) {
	for _, g := range got {
		if !slices.Contains(want, g) {
			d = append(d, "+"+g)
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			d = append(d, "-"+w)
		}
	}
	return d
}

// startLab starts nodes, ready when it returns.
func startLab(ctx context.Context, t *testing.T, names ...string) *lab.Lab {
	t.Helper()
	l, err := lab.New(ctx, deadNodeConfig)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		n, err := l.AddNode(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.AwaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// ask returns who is there, as a node says.
func ask(ctx context.Context, t *testing.T, n *lab.Node) (users []string) {
	t.Helper()
	running, stop := context.WithCancel(ctx)
	p := &wanderer{user: "asker", nodes: []*lab.Node{n}}
	c := p.client(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(running) // the answer says how it went
	}()
	defer func() { stop(); <-done }()
	members, count, err := c.Presence(ctx, room)
	if err != nil || count != len(members) {
		t.Fatalf("%s: %d of %d members, %v", n.Name, len(members), count, err)
	}
	for _, m := range members {
		users = append(users, m.User)
	}
	return users
}

// wanderer is a user whose client comes and goes, to any node.
type wanderer struct {
	user  string
	nodes []*lab.Node

	mu    sync.Mutex // guards what follows
	conns []net.Conn
	gone  bool // it can connect to nothing

	end func() // ends the client; nil: there is none
	now *client.Client
	sub *client.Subscription
}

func (p *wanderer) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	p.mu.Lock()
	gone := p.gone
	p.mu.Unlock()
	if gone {
		return nil, fmt.Errorf("%s has vanished", p.user)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, p.nodes[rand.N(len(p.nodes))].Public)
	if err == nil {
		p.mu.Lock()
		p.conns = append(p.conns, c)
		p.mu.Unlock()
	}
	return c, err
}

func (p *wanderer) cut(vanish bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = vanish
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *wanderer) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New("ws://gateway/ws", client.Options{
		Backoff: client.Backoff{Min: 50 * time.Millisecond, Max: 500 * time.Millisecond},
		Token: func(context.Context) (string, error) {
			return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": p.user, "subscribe": []string{"*"}}).SignedString([]byte(lab.Secret))
		},
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: p.dial, DisableKeepAlives: true}},
	})
	if err != nil {
		t.Error(err)
	}
	return c
}

// act does something at random.
func (p *wanderer) act(ctx context.Context, t *testing.T) {
	t.Helper()
	if p.now == nil {
		p.arrive(ctx, t)
		return
	}
	switch rand.N(5) {
	case 0:
		p.stop() // in good order
	case 1:
		p.cut(true) // without a word
		p.stop()
	case 2, 3:
		p.cut(false) // it comes back to its session
	case 4:
		if p.sub != nil {
			p.sub.Unsubscribe()
			p.sub = nil
			return
		}
		p.subscribe(t)
	}
}

func (p *wanderer) subscribe(t *testing.T) {
	t.Helper()
	var err error
	if p.sub, err = p.now.Subscribe(room, client.Handler{}); err != nil {
		t.Error(err)
	}
}

// arrive has the user connected, and subscribed.
func (p *wanderer) arrive(ctx context.Context, t *testing.T) {
	t.Helper()
	p.mu.Lock()
	p.gone = false
	p.mu.Unlock()
	if p.now == nil {
		c := p.client(t)
		running, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- c.Run(running) }()
		p.now = c
		p.end = func() {
			stop()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", p.user, err)
			}
		}
	}
	if p.sub == nil {
		p.subscribe(t)
	}
}

// stop ends the client.
func (p *wanderer) stop() {
	if p.now != nil {
		p.end()
	}
	p.now, p.sub = nil, nil
}
