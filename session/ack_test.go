package session_test

import (
	"fmt"
	"testing"
	"time"
)

func TestAckOnlyGoesForward(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start("a"), c.start("b")
		ack := func(device, position string) {
			t.Helper()
			if err := a.Ack(t.Context(), "alice", device, position); err != nil {
				t.Fatal(err)
			}
		}
		acked := func(device string) string {
			claim := alice("")
			claim.Device = device
			h := b.claim(claim)
			h.Session.End("test")
			return h.Acked
		}
		equal(t, "unknown", acked("phone"), "")
		const big = "18446744073709551615"
		for _, step := range []struct{ position, want string }{
			{"9-0", "9-0"}, {"10-0", "10-0"}, {"9-99", "10-0"}, {"10-9", "10-9"}, {"10-10", "10-10"}, {"10-9", "10-10"},
			{"1795220889076-9007199254740993", "1795220889076-9007199254740993"},
			{"1795220889076-9007199254740992", "1795220889076-9007199254740993"},
			{big + "-" + big, big + "-" + big}, {"1-0", big + "-" + big},
		} {
			ack("my phone", step.position)
			equal(t, "after "+step.position, acked("my phone"), step.want)
		}
		equal(t, "another device", acked("phone"), "")
		equal(t, "no device", acked(""), "")

		for i := range 120 {
			pass(time.Millisecond)
			ack(fmt.Sprint("d", i), "5-0")
		}
		equal(t, "forgotten", acked("my phone")+acked("d19"), "")
		equal(t, "kept", acked("d20")+acked("d119"), "5-05-0")
		equal(t, "ttl", c.rdb.PTTL(t.Context(), "gw:{user:alice}:acks").Val(), 30*24*time.Hour)
		c.rdb.Del(t.Context(), "gw:{user:alice}:acks")
	})
}
