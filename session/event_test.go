package session_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/session"
)

// atConnected is a hook for the pipelines which tell that a session of a user is
// connected: tell runs that, and others what else is in them.
type atConnected func(user string, tell, others func() error) error

func (atConnected) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (atConnected) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (f atConnected) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			args := cmd.Args()
			if i := slices.Index(args, any("connected")); i >= 0 {
				others := slices.DeleteFunc(slices.Clone(cmds), func(c redis.Cmder) bool { return c == cmd })
				err := f(args[i+2].(string),
					func() error { return next(ctx, []redis.Cmder{cmd}) },
					func() error {
						if len(others) == 0 {
							return nil
						}
						return next(ctx, others)
					})
				for _, cmd := range cmds {
					if err != nil && cmd.Err() == nil {
						cmd.SetErr(err)
					}
				}
				return err
			}
		}
		return next(ctx, cmds)
	}
}

// cutsAtConnected cuts a node off once it tells that a session of alice's is connected:
// right after Redis has done that, or before it has heard of it. What is to be told of
// bob waits until the gate is closed.
func cutsAtConnected(n *node, executed bool, gate <-chan struct{}) {
	done := false // only the writer comes here
	n.rdb.AddHook(atConnected(func(user string, tell, others func() error) error {
		if user == "bob" {
			<-gate
		}
		if user == "bob" || done {
			return errors.Join(tell(), others())
		}
		if executed {
			if err := errors.Join(tell(), others()); err != nil {
				return err // Redis does not have the script yet
			}
		}
		done = true
		n.link.cut()
		return errors.New("read: connection reset by peer")
	}))
}

// eventsOf returns the events of one session, without its id and user.
func (c *cluster) eventsOf(h *held) (events []string) {
	for _, e := range c.events() {
		if about := " " + h.Session.ID + " alice "; strings.Contains(e, about) {
			events = append(events, strings.TrimSpace(strings.Replace(e, about, " ", 1)))
		}
	}
	return events
}

// TestEventsOfAShortSessionComeOnce: its node is cut off as it tells that the session
// is connected, and another one tells that it is over, before that is repeated.
func TestEventsOfAShortSessionComeOnce(t *testing.T) {
	for name, executed := range map[string]bool{"answer lost": true, "not heard of": false} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				a := c.startWith(session.Config{Node: "a", Events: true})
				c.startWith(session.Config{Node: "b", Events: true})
				gate := make(chan struct{})
				cutsAtConnected(a, executed, gate)
				bob := a.claim(session.Claim{User: "bob", Client: "web"})
				pass(0) // the writer waits
				h := a.claim(alice(""))
				h.Session.End("client")
				close(gate)
				pass(6 * time.Second)
				a.link.mend()
				pass(30 * time.Second)
				equalSlices(t, "events", c.eventsOf(h), []string{"connected a", "disconnected a client"})
				bob.Session.End("client")
				pass(5 * time.Second)
				c.rdb.Del(t.Context(), "gw:events")
			})
		})
	}
}

// TestEventsComeInOrderThoughTheEndIsKnownFirst: that a short session is connected goes to
// one server of a Cluster, and the note that it is over to another one, which is faster.
func TestEventsComeInOrderThoughTheEndIsKnownFirst(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startWith(session.Config{Node: "a", Events: true})
		c.startWith(session.Config{Node: "b", Events: true})
		gate := make(chan struct{})
		a.rdb.AddHook(atConnected(func(user string, tell, others func() error) error {
			if user == "bob" {
				<-gate
				return errors.Join(tell(), others())
			}
			err := others()
			time.Sleep(2 * time.Second) // somebody tells that it is over
			return errors.Join(err, tell())
		}))
		bob := a.claim(session.Claim{User: "bob", Client: "web"})
		pass(0) // the writer waits
		h := a.claim(alice(""))
		h.Session.End("client")
		close(gate)
		pass(10 * time.Second)
		equalSlices(t, "events", c.eventsOf(h), []string{"connected a", "disconnected a client"})
		bob.Session.End("client")
		pass(5 * time.Second)
		equal(t, "open", c.redis.Exists("gw:{gw:events}:open"), false)
		c.rdb.Del(t.Context(), "gw:events")
	})
}

// TestEventsOfADisconnectedSessionComeOnce: the same with a backend that ends the session
// meanwhile.
func TestEventsOfADisconnectedSessionComeOnce(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startWith(session.Config{Node: "a", Events: true})
		b := c.startWith(session.Config{Node: "b", Events: true})
		cutsAtConnected(a, true, nil)
		h := a.claim(alice(""))
		pass(time.Second)
		b.disconnect("")
		pass(6 * time.Second)
		h.Session.Leave(window, "lost") // its client has gone
		a.link.mend()
		pass(2 * window)
		equalSlices(t, "events", c.eventsOf(h), []string{"connected a", "disconnected a disconnected"})
		c.rdb.Del(t.Context(), "gw:events")
	})
}

// TestSessionThatComesBackAfterItsEndBeginsAgain: its node was away for longer than its
// window, and its connection was up all the time.
func TestSessionThatComesBackAfterItsEndBeginsAgain(t *testing.T) {
	for name, lossy := range map[string]bool{"at once": false, "the answer is lost": true} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *cluster) {
				a := c.startWith(session.Config{Node: "a", Events: true})
				c.startWith(session.Config{Node: "b", Events: true})
				h := a.claim(alice(""))
				pass(time.Second)
				a.link.cut()
				pass(window + 30*time.Second)
				if lossy {
					cutsAtConnected(a, true, nil)
				}
				a.link.mend()
				pass(5 * time.Second)
				a.link.mend()
				pass(30 * time.Second)
				h.Session.End("client")
				pass(5 * time.Second)
				equalSlices(t, "events", c.eventsOf(h), []string{
					"connected a", "disconnected a node_lost", "connected a", "disconnected a client",
				})
				c.rdb.Del(t.Context(), "gw:events")
			})
		})
	}
}

// loseEvents has the server of a Cluster lose its data that has the events.
func (c *cluster) loseEvents() {
	c.rdb.Del(context.Background(), "gw:events", "gw:{gw:events}:open", "gw:{gw:events}:ended", "gw:{gw:events}:epoch")
}

// TestEventsThatRedisLostAreWrittenAgain: in a Cluster another server may have the lease,
// which shows nothing.
func TestEventsThatRedisLostAreWrittenAgain(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startWith(session.Config{Node: "a", Events: true})
		h := a.claim(alice(""))
		pass(5 * time.Second)
		equalSlices(t, "events", c.eventsOf(h), []string{"connected a"})
		c.loseEvents()
		pass(5 * time.Second)
		equalSlices(t, "events after the loss", c.eventsOf(h), []string{"connected a"})
		h.Session.End("client")
		pass(5 * time.Second)
		equalSlices(t, "events", c.eventsOf(h), []string{"connected a", "disconnected a client"})
		c.rdb.Del(t.Context(), "gw:events")
	})
}

// TestEventsThatRedisLostDuringAWriteAreWrittenAgain: it was under way when that was found.
func TestEventsThatRedisLostDuringAWriteAreWrittenAgain(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.startWith(session.Config{Node: "a", Events: true})
		h := a.claim(alice(""))
		pass(5 * time.Second)
		a.rdb.AddHook(atCommand{"room:slow", func() error { time.Sleep(2 * time.Second); return nil }})
		c.loseEvents()
		h.Session.SetChannels([]string{"room:slow"})
		pass(10 * time.Second)
		equalSlices(t, "events after the loss", c.eventsOf(h), []string{"connected a"})
		h.Session.End("client")
		pass(10 * time.Second)
		equalSlices(t, "events", c.eventsOf(h), []string{"connected a", "disconnected a client"})
		c.rdb.Del(t.Context(), "gw:events")
	})
}
