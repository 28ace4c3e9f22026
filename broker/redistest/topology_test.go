package redistest

import (
	"fmt"
	"testing"
)

func TestReplicaFollowsUntilDetached(t *testing.T) {
	master := Start(t)
	replica := StartReplica(t, master)
	sub := replica.Client(t).Subscribe(t.Context(), "c")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	receive := func(want string) {
		t.Helper()
		msg, err := sub.ReceiveMessage(t.Context())
		if err != nil || msg.Payload != want {
			t.Fatalf("received %v, %v, want %s", msg, err, want)
		}
	}

	master.CLI("PUBLISH", "c", "before")
	receive("before")
	replica.Detach()
	master.CLI("PUBLISH", "c", "after")
	replica.CLI("PUBLISH", "c", "own")
	receive("own")
}

func TestClusterServesAllSlots(t *testing.T) {
	c := StartCluster(t, 3)
	client := c.Client(t)
	for i := range 30 {
		if err := client.Set(t.Context(), fmt.Sprint("k", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range c.Nodes {
		if node.CLI("DBSIZE") == "0" {
			t.Errorf("%s holds no key", node.Addr())
		}
	}
}

func TestSentinelFailsOver(t *testing.T) {
	s := StartSentinel(t)
	client := s.Client(t)
	if err := client.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	old := s.Master()
	if old != s.Servers[0] {
		t.Fatalf("the first master is %s, want %s", old.Addr(), s.Servers[0].Addr())
	}
	await(t, "the replica has the key", func() bool { return s.Servers[1].CLI("GET", "k") == "v" })

	old.Kill()
	await(t, "the replica is the master", func() bool { return s.Master() != old })
	await(t, "the client finds it", func() bool {
		got, err := client.Get(t.Context(), "k").Result()
		return err == nil && got == "v" && client.Set(t.Context(), "k2", "v", 0).Err() == nil
	})
}

func TestClusterReplicaTakesOver(t *testing.T) {
	c := StartCluster(t, 3)
	replica := c.StartReplica(t, c.Nodes[0])
	if replica.IsMaster() {
		t.Fatal("the replica is a master")
	}
	c.Nodes[0].Kill()
	await(t, "the replica has taken over", replica.IsMaster)
}
