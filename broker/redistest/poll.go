package redistest

import (
	"testing"
	"time"
)

// pollInterval is the pause between two looks at a condition: far below what
// a redis-server needs to start, and no load while several of them do.
const pollInterval = 5 * time.Millisecond

// await returns when condition holds and ends the test when it does not
// within startTimeout; what names the condition.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("redistest: not within %v: %s", startTimeout, what)
		}
		time.Sleep(pollInterval)
	}
}
