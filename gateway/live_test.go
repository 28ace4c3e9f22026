package gateway_test

import (
	"testing"

	"wssgateway/broker/redistest"
)

// TestPublishedInRedisByHand: what is understood is delivered, the rest is counted.
func TestPublishedInRedisByHand(t *testing.T) {
	t.Parallel()
	rdb := redistest.EmbeddedClient(t, redistest.Embedded(t))
	n := startNode(t, "a", rdb)
	c, _ := n.connect(t, "alice", "channel=room:1")
	bad := []string{`{"Data":1}`, `{"data":1,"data":2}`, `{"event":"\ud800","data":1}`, "{\"data\":\"\xff\"}", `hello`}
	for _, payload := range append(bad, `{"Event":"x","event":"tick","data":"hi"}`) {
		if err := rdb.Publish(t.Context(), "gw:live:room:1", payload).Err(); err != nil {
			t.Fatal(err)
		}
	}
	expectHas(t, c.expect("message"), frame{"channel": "room:1", "event": "tick", "id": nil, "data": "hi"})
	if got := n.metric("gateway_messages_malformed_total"); got != float64(len(bad)) {
		t.Errorf("%v were counted, want %d", got, len(bad))
	}
}
