package broker

import (
	"testing"
	"time"

	"wssgateway/broker/redistest"
)

// A master whose clock is an hour ahead stores a message, and one with a right
// clock takes over without it.
func TestIDsNeverGoBackWhenLastMessageIsLost(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := startNode(t, s.Client(t), "", "a"), startNode(t, s.Client(t), "", "b")
	r := b.subscribe(t, "room")
	kept := a.publish(t, "room", "kept", keep)
	meta, stream := a.layout.meta("room"), a.layout.stream("room")
	ahead := ID{MS: kept.MS + uint64(time.Hour.Milliseconds())}
	s.CLI("SET", meta, ahead.String())
	lost := a.publish(t, "room", "lost", keep)
	r.waitFor(t, lost)

	start := time.Now()
	s.CLI("XDEL", stream, lost.String())
	s.CLI("XSETID", stream, kept.String())
	s.CLI("SET", meta, kept.String())
	checkLost := func() {
		t.Helper()
		if h, err := b.Head(t.Context(), "room", lost); err != nil || h.Recovered {
			t.Errorf("head after the lost message = %+v, %v, want it not recovered", h, err)
		}
	}
	checkLost()
	// b has only heard of the lost message.
	next := b.publish(t, "room", "next", keep)
	if next.Compare(lost) <= 0 {
		t.Errorf("published %s after %s was delivered", next, lost)
	}
	checkLost()
	events := r.waitFor(t, next)
	t.Logf("recovered in %v : a last message lost under a slower clock", time.Since(start))
	if resets(events) == 0 {
		t.Errorf("ids %v delivered without a reset", ids(events))
	}
}
