package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"wssgateway/broker/redistest"
	"wssgateway/session"
)

const (
	// hangs is for how long a server does not answer: Redis's clients wait for three
	// seconds.
	hangs = 5 * time.Second
	// quickly is how fast the others are to be meanwhile. They need milliseconds, and
	// what waits for the server that hangs needs seconds.
	quickly = 1500 * time.Millisecond
)

// A server that does not answer costs its own users, and nobody else's claims and writes
// (finding A8).
func TestServerThatHangsHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		key string // on the server that hangs
		// tells has the node write who is to be told of, and events. What is told waits
		// for the server that keeps it, and the end of a session is told.
		tells bool
		most  useTimes
	}{
		"has users":          {"", false, useTimes{quickly, quickly, quickly}},
		"has the index":      {"index", false, useTimes{quickly, quickly, quickly}},
		"has who is told of": {"gw:{gone}:due", true, useTimes{quickly, quickly, hangs + quickly}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stolen := redistest.TimeStolen(t)
			c := redistest.StartCluster(t, 3)
			for _, s := range c.Nodes { // what is left serves its slots
				s.CLI("CONFIG", "SET", "cluster-require-full-coverage", "no")
			}
			cfg := session.Config{Node: "a", Lease: 3 * time.Second, Heartbeat: time.Second}
			if test.tells {
				cfg.Gone = func(context.Context, []session.Gone) error { return nil }
			}
			n, hung := startBeside(t, c, cfg, test.key)
			healthy, dead := usersBeside(c, hung)
			for _, user := range append(healthy[:3:3], dead[:3]...) {
				n.claim(browser(user)) // connections are there
			}
			hung.Pause()
			defer hung.Resume()
			slowest := n.useWhileItHangs(t, healthy, dead)
			t.Logf("slowest on servers that answer: %+v", slowest)
			late := stolen()
			if slowest.claim > test.most.claim+late || slowest.write > test.most.write+late || slowest.leave > test.most.leave+late {
				t.Errorf("users of servers that answer waited: %+v", slowest)
			}
			equalSlices(t, "nodes whose lease runs", n.names(), []string{"a"})
		})
	}
}

// startBeside starts a node, and returns it with the server that is to hang: that of the
// key, which does not have the leases.
func startBeside(t *testing.T, c *redistest.Cluster, cfg session.Config, key string) (*node, *redistest.Server) {
	t.Helper()
	leases, gone := serverOf(c, "gw:{nodes}:lease"), serverOf(c, "gw:{gone}:due")
	for range 50 { // the index is where its name says
		n := run(t, c.Client(t), cfg)
		index := serverOf(c, fmt.Sprintf("gw:{node:%s.1}:sessions", n.Node()))
		hung := index
		switch key {
		case "index":
		case "":
			for _, s := range c.Nodes {
				if s != leases && s != gone && s != index {
					hung = s
				}
			}
		default:
			hung = serverOf(c, key)
		}
		if hung != leases && (key == "index") == (hung == index) {
			return n, hung
		}
		n.stop()
	}
	t.Fatalf("%q is on the server of the leases", key)
	return nil, nil
}

// The ends of sessions on a server that does not answer hold up nobody else's, nor do
// questions about them.
func TestServerThatHangsHoldsUpNobodyElsesEnd(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3)
	for _, s := range c.Nodes {
		s.CLI("CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	w := &witness{}
	n, hung := startBeside(t, c, session.Config{Node: "a", Lease: 3 * time.Second, Heartbeat: time.Second, Gone: w.gone}, "")
	healthy, dead := usersBeside(c, hung)
	refs := make(map[string]session.Ref)
	for i := range 50 { // of whom some are over at any time
		claim := browser(dead[i%len(dead)])
		h := n.claim(claim)
		refs[h.Session.ID] = session.Ref{User: claim.User, ID: h.Session.ID}
		h.Session.Leave(time.Second+time.Duration(i)*hangs/50, "test")
	}
	eventually(t, "all have left", func() bool { return len(n.onlineOf(dead...)) == 0 })
	hung.Pause()
	resume := sync.OnceFunc(hung.Resume)
	defer resume()
	told := func(id string) func() bool { return func() bool { return slices.Contains(w.ids(), id) } }
	tick := time.NewTicker(100 * time.Millisecond) // between two of them
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < hangs; <-tick.C {
		h := n.claim(browser(healthy[0]))
		start := time.Now()
		h.Session.End("test")
		eventually(t, "told", told(h.Session.ID))
		if took := time.Since(start); took > quickly {
			t.Errorf("told after %v, %v after the server hung", took, time.Since(begin))
		}
		refs[h.Session.ID] = session.Ref{User: healthy[0], ID: h.Session.ID}
	}
	lives := n.claim(browser(healthy[1]))
	start := time.Now()
	alive, err := n.Alive(t.Context(), []session.Ref{
		{User: dead[0], ID: "s_1"}, {User: healthy[0], ID: "s_2"}, {User: healthy[1], ID: lives.Session.ID},
	})
	if took := time.Since(start); took > quickly || err == nil || !slices.Equal(alive, []bool{true, false, true}) {
		t.Errorf("alive after %v: %v, %v", took, alive, err)
	}
	resume()
	eventually(t, "all are told", func() bool { return len(w.ids()) >= len(refs) })
	n.stop()
	for _, id := range w.ids() {
		if _, ok := refs[id]; !ok {
			t.Errorf("told of %s, twice or unasked", id)
		}
		delete(refs, id)
	}
}

func serverOf(c *redistest.Cluster, key string) *redistest.Server {
	slot, _ := strconv.Atoi(c.Nodes[0].CLI("CLUSTER", "KEYSLOT", key))
	return c.Nodes[slot*len(c.Nodes)/16384]
}

// usersBeside returns users of servers that answer, and of the one that does not.
func usersBeside(c *redistest.Cluster, hung *redistest.Server) (healthy, dead []string) {
	for i := 0; len(healthy) < 12 || len(dead) < 12; i++ {
		user := "user-" + strconv.Itoa(i)
		if serverOf(c, "gw:{user:"+user+"}:sessions") == hung {
			dead = append(dead, user)
		} else {
			healthy = append(healthy, user)
		}
	}
	return healthy, dead
}

func browser(user string) session.Claim {
	c := alice("")
	c.User = user
	return c
}

// useWhileItHangs has all users come and go, and returns how long the slowest took of
// those whose server answers.
func (n *node) useWhileItHangs(t *testing.T, healthy, dead []string) (slowest useTimes) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), hangs)
	defer stop()
	var users sync.WaitGroup
	for _, user := range dead {
		users.Go(func() {
			for ctx.Err() == nil {
				n.claimInVain(t, ctx, user)
			}
		})
	}
	var mu sync.Mutex
	for _, user := range healthy {
		users.Go(func() {
			took, err := n.useUntil(ctx, user)
			if err != nil {
				t.Errorf("%s: %v", user, err)
			}
			mu.Lock()
			defer mu.Unlock()
			slowest = useTimes{
				max(slowest.claim, took.claim), max(slowest.write, took.write), max(slowest.leave, took.leave),
			}
		})
	}
	users.Wait()
	return slowest
}

// claimInVain claims a session on a server that hangs. It runs on a goroutine of its own.
func (n *node) claimInVain(t *testing.T, ctx context.Context, user string) {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	claim, begin, stolen := browser(user), time.Now(), redistest.TimeStolen(t)
	claim.Holder = &held{}
	if _, err := n.Claim(ctx, claim); err == nil {
		t.Errorf("%s: claimed on a server that hangs", user)
	}
	if took := time.Since(begin); took > patience+quickly+stolen() {
		t.Errorf("%s: the claim failed after %v, its deadline was %v", user, took, patience)
	}
}

// useTimes is how long it took until a user was there, had a channel, and was gone.
type useTimes struct{ claim, write, leave time.Duration }

// useUntil has a user come, change and go until ctx is done, and returns how long the
// slowest of each took. It runs on a goroutine of its own.
func (n *node) useUntil(ctx context.Context, user string) (slowest useTimes, err error) {
	for ctx.Err() == nil {
		begin := time.Now()
		h, err := n.try(browser(user))
		if err != nil {
			return slowest, fmt.Errorf("claim: %w", err)
		}
		slowest.claim = max(slowest.claim, time.Since(begin))

		begin = time.Now()
		h.Session.SetChannels([]string{"room:1"})
		err = n.await(user, func(all []session.Info) bool {
			for _, s := range all {
				if s.ID == h.Session.ID && len(s.Channels) == 1 {
					return true
				}
			}
			return false
		})
		if err != nil {
			return slowest, fmt.Errorf("write: %w", err)
		}
		slowest.write = max(slowest.write, time.Since(begin))

		begin = time.Now()
		h.Session.Leave(time.Minute, "test")
		err = n.await(user, func(all []session.Info) bool {
			for _, s := range all {
				if s.ID == h.Session.ID {
					return false
				}
			}
			return true
		})
		if err != nil {
			return slowest, fmt.Errorf("leave: %w", err)
		}
		slowest.leave = max(slowest.leave, time.Since(begin))
	}
	return slowest, nil
}

// await waits until Redis has the sessions of a user as they should be.
func (n *node) await(user string, ok func([]session.Info) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := n.User(ctx, user)
		if err != nil {
			return err
		}
		if ok(all) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("Redis has not got it")
		}
	}
}
