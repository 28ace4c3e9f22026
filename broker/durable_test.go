package broker

import (
	"errors"
	"testing"
	"time"

	"wssgateway/broker/redistest"
)

func durably(channel, payload, key string) Publication {
	return Publication{Channel: channel, Payload: []byte(payload), Retention: keep, Key: key, Scope: "s", Durable: true}
}

func TestDurablePublishWaitsForAReplica(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	n := startNode(t, master.Client(t), "", "a")
	r := n.subscribe(t, "room")

	start, stolen := time.Now(), redistest.TimeStolen(t)
	first, err := n.Publish(t.Context(), durably("room", "alone", "k-1"))
	if !errors.Is(err, ErrNotReplicated) || !first.IsZero() {
		t.Errorf("without a replica: %v, %v", first, err)
	}
	if took := time.Since(start); took > 4*time.Second+stolen() {
		t.Errorf("answered after %v", took)
	}
	r.waitCount(t, 1) // it is stored, and was handed on
	if _, err := n.Publish(t.Context(), durably("room", "alone", "k-1")); !errors.Is(err, ErrNotReplicated) {
		t.Errorf("repeated, without a replica: %v", err)
	}

	replica := redistest.StartReplica(t, master)
	begin := time.Now()
	id, err := n.Publish(t.Context(), durably("room", "alone", "k-1"))
	if events := r.waitCount(t, 1); err != nil || id != events[0].ID {
		t.Errorf("repeated: %v, %v, was delivered as %v", id, err, events[0].ID)
	}
	t.Logf("recovered in %v: a replica that was missing", time.Since(begin))
	begin = time.Now()
	for range 10 {
		if _, err := n.Publish(t.Context(), durably("other", "x", "")); err != nil {
			t.Error(err)
		}
	}
	t.Logf("a durable publish takes %v", time.Since(begin)/10)
	replica.Pause()
	if _, err := n.Publish(t.Context(), durably("room", "paused", "k-2")); !errors.Is(err, ErrNotReplicated) {
		t.Errorf("with a replica that does not answer: %v", err)
	}
	if _, err := n.Publish(t.Context(), Publication{Channel: "room", Payload: []byte("other"), Retention: keep}); err != nil {
		t.Errorf("a publish that is not durable: %v", err)
	}
	resumed := time.Now()
	replica.Resume()
	for {
		if _, err := n.Publish(t.Context(), durably("room", "paused", "k-2")); err == nil {
			break
		}
	}
	t.Logf("recovered in %v: a replica that had stopped", time.Since(resumed))
	if got := payloads(r.waitCount(t, 3)); got[0] != "alone" || got[1] != "paused" || got[2] != "other" {
		t.Errorf("delivered %q", got)
	}
}

// What was acknowledged as durable survives the master.
func TestDurableMessagesSurviveTheirMaster(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := redistest.StartReplica(t, master)
	proxy := redistest.NewProxy(t, master.Addr())
	n := startNode(t, dial(t, proxy.Addr()), "", "a")
	var acknowledged []ID
	for range 100 {
		id, err := n.Publish(t.Context(), durably("room", "kept", ""))
		if err != nil {
			t.Fatal(err)
		}
		acknowledged = append(acknowledged, id)
	}
	master.Kill()
	replica.CLI("REPLICAOF", "NO", "ONE")
	proxy.SetTarget(replica.Addr())
	proxy.Cut()
	killed := time.Now()
	b := startNode(t, replica.Client(t), "", "b")
	messages, err := b.Read(t.Context(), "room", ID{}, 200)
	if err != nil || len(messages) != len(acknowledged) {
		t.Fatalf("%d of %d acknowledged messages are left, %v", len(messages), len(acknowledged), err)
	}
	for i, m := range messages {
		if m.ID != acknowledged[i] {
			t.Errorf("message %d is %v, want %v", i, m.ID, acknowledged[i])
		}
	}
	for {
		id, err := n.Publish(t.Context(), Publication{Channel: "room", Payload: []byte("next"), Retention: keep})
		if err != nil {
			continue
		}
		if id.Compare(acknowledged[len(acknowledged)-1]) <= 0 {
			t.Errorf("issued %v after %v", id, acknowledged[len(acknowledged)-1])
		}
		t.Logf("recovered in %v: a master that died", time.Since(killed))
		return
	}
}

func TestDurablePublishInACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3)
	n := startNode(t, c.Client(t), "", "a")
	for i := range 20 { // on all masters, none of which has a replica
		r := n.subscribe(t, room(i))
		if _, err := n.Publish(t.Context(), durably(room(i), "alone", "k")); !errors.Is(err, ErrNotReplicated) {
			t.Fatalf("without a replica: %v", err)
		}
		r.waitCount(t, 1)
		if i == 2 {
			break // each takes two seconds
		}
	}
}
