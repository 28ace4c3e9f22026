package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"wssgateway/broker/redistest"
)

// lose stores a message as publish does, but hands it to nobody.
func (n *node) lose(t testing.TB, channel string) ID {
	t.Helper()
	lane := n.layout.laneOf(channel)
	keys := []string{n.layout.stream(channel), n.layout.meta(channel), n.layout.epoch(lane), "nobody"}
	args := n.storing([]any{"lost", keyTTL.Milliseconds()}, channel, Retention{Size: 100, TTL: time.Hour})
	reply, err := n.batch.eval(t.Context(), publishScript, keys, args...)
	if err != nil {
		t.Fatal(err)
	}
	id, err := parseIDReply(reply)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSweepFindsLostLastMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, redistest.EmbeddedClient(t, redistest.InMemory(t)), "", "a")
		var recorders [100]*recorder
		var lost [len(recorders)]ID
		for i := range recorders {
			recorders[i] = n.subscribe(t, room(i))
			n.publish(t, room(i), "seen", keep)
			lost[i] = n.lose(t, room(i))
		}
		begin := time.Now()
		for i, r := range recorders {
			events := r.waitFor(t, lost[i])
			checkStory(t, events, lost[i:i+1])
			if len(events) != 2 || resets(events) > 0 {
				t.Errorf("%s: %d events, %d resets, want 2 messages", room(i), len(events), resets(events))
			}
		}
		// A turn that had begun, a whole one, and a second look.
		if took := time.Since(begin); took > (2*sweepTurn+2)*watchEvery {
			t.Errorf("found after %v", took)
		}
	})
}

// What Redis has forgotten is no loss, but only what is old enough can have
// expired: else the last message was lost in a failover which the link did not
// notice (finding B3).
func TestForgottenChannelIsNoLoss(t *testing.T) {
	for _, tt := range []struct {
		name   string
		age    time.Duration
		resets int
	}{{"forgotten", leastMemory, 0}, {"lost", leastMemory / 2, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testForgottenChannel(t, tt.age, tt.resets) })
		})
	}
}

func testForgottenChannel(t *testing.T, age time.Duration, want int) {
	n := startNode(t, redistest.EmbeddedClient(t, redistest.InMemory(t)), "", "a")
	r := n.subscribe(t, "room")
	n.publish(t, "room", "old", keep)
	r.waitCount(t, 1)
	<-time.After(age)
	if err := n.rdb.Del(t.Context(), n.layout.stream("room"), n.layout.meta("room")).Err(); err != nil {
		t.Fatal(err)
	}
	<-time.After((sweepTurn + 2) * watchEvery)
	id := n.publish(t, "room", "new", keep)
	events := r.waitFor(t, id)
	if len(payloads(events)) != 2 || resets(events) != want {
		t.Errorf("%d messages and %d resets, want 2 and %d", len(payloads(events)), resets(events), want)
	}
}
