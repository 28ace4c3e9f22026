package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A server that has left the Cluster leaves no queue behind, and one that is used keeps
// its own (finding A8).
func TestQueueThatNobodyUsesEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newClaims(nil)
		ctx, stop := context.WithCancel(t.Context())
		go q.run(ctx)
		gone, used := q.enter("gone"), q.enter("used")
		q.exit(gone)
		time.Sleep(claimIdle + time.Second)
		q.exit(q.enter("new"))
		if q.enter("used") != used {
			t.Error("a queue was replaced that has a claim")
		}
		select {
		case <-gone.ended: // and its senders with it
		default:
			t.Error("the queue of a server that is gone has not ended")
		}
		if again := q.enter("gone"); again == gone {
			t.Error("a server that is back has the queue that has ended")
		}
		stop()
		synctest.Wait()
		q.enter("late") // does not wait for senders
	})
}
