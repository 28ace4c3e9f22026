package session_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"wssgateway/session"
)

// TestAHandlerThatWaitsHoldsUpNoOther: it cannot deal with one session as long as it may
// try. What it has dealt with is settled all the same, and not told again.
func TestAHandlerThatWaitsHoldsUpNoOther(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		w := &witness{}
		var stuck atomic.Value
		stuck.Store("")
		a := c.startWith(session.Config{Node: "a", Events: true, Gone: func(ctx context.Context, gone []session.Gone) error {
			id := stuck.Load().(string)
			is := func(g session.Gone) bool { return g.ID == id }
			waits := slices.ContainsFunc(gone, is)
			if err := w.gone(ctx, slices.DeleteFunc(slices.Clone(gone), is)); err != nil || !waits {
				return err
			}
			<-ctx.Done()
			return session.Untold{id: ctx.Err()}
		}})
		one, other := a.claim(alice("")), a.claim(alice(""))
		pass(0)
		stuck.Store(one.Session.ID)
		one.Session.Leave(window, "lost")
		other.Session.Leave(window, "lost")
		pass(window + 15*time.Second)
		equalSlices(t, "told", w.ids(), []string{other.Session.ID})
		events := c.events()
		equalSlices(t, "events of ends", events[2:], []string{"disconnected " + other.Session.ID + " alice a lost"})
		stuck.Store("")
		pass(15 * time.Second)
		equalSlices(t, "told in the end", w.ids(), []string{other.Session.ID, one.Session.ID})
		c.rdb.Del(t.Context(), "gw:events") // for the check at the end
	})
}
