package session_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestASessionThatKeepsChangingHoldsUpNoOther: however often it has changed while the
// writer was busy, it is written once, and those that changed after it with it.
func TestASessionThatKeepsChangingHoldsUpNoOther(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start("a")
		first, restless, other := a.claim(alice("")), a.claim(alice("")), a.claim(alice(""))
		a.link.slow(100 * time.Millisecond)
		first.Session.SetChannels([]string{"room:1"})
		for n := range 10 * 256 { // of batches
			pass(0)
			restless.Session.SetChannels([]string{"room:" + strconv.Itoa(n)})
		}
		ctx, cancel := context.WithCancel(t.Context())
		var changes sync.WaitGroup
		changes.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				restless.Session.SetChannels([]string{"room:" + strconv.Itoa(n)})
				pause := time.NewTimer(10 * time.Millisecond)
				select {
				case <-pause.C:
				case <-ctx.Done():
				}
			}
		})
		pass(0)
		start := time.Now()
		other.Session.SetChannels([]string{"room:1"})
		if err := other.Session.AwaitWritten(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("written after %v, want the write under way and one more", took)
		}
		cancel()
		changes.Wait()
		a.link.mend()
		for _, h := range []*held{first, restless, other} {
			h.Session.End("done")
		}
	})
}
