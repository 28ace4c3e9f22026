package gateway_test

import (
	"fmt"
	"testing"

	"wssgateway/broker/redistest"
)

// TestFrozenReadersOfAReplay: who comes back to a large channel and reads nothing
// costs a page, however much there is (finding H5). It is not parallel: it measures
// the memory of the process.
func TestFrozenReadersOfAReplay(t *testing.T) {
	n := startNode(t, "a", redistest.Start(t).Client(t), deep)
	n.big(t, "deep:1", 100)
	const readers = 30
	before := memory(t)
	for i := range readers {
		c := n.bare(t, "connect=1&channel=deep:1@0&access_token="+token(fmt.Sprint("user", i)), "")
		_ = c
	}
	await(t, func() error {
		if got := n.metric("gateway_replayed_total"); got < 2*readers {
			return fmt.Errorf("%v messages were replayed", got)
		}
		return nil
	})
	const most = 128<<10 + 60_000 + 100_000 // a page, and a connection
	if got := (memory(t).heap - before.heap) / readers; got > most {
		t.Errorf("each holds %d bytes, want %d at most", got, most)
	}
}
