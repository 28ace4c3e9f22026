package gateway

import (
	"testing"
	"time"
)

// TestFloodsThatAreLetThroughNowAndThenEnd: where reading takes so long that one request
// is let through before a hundred were refused in a row, they end the connection, too;
// who is a little over the rate stays.
func TestFloodsThatAreLetThroughNowAndThenEnd(t *testing.T) {
	for perSecond, ends := range map[int]bool{90: false, 110: false, 190: false, 1000: true, 30_000: true} {
		var l limiter
		now := time.Now()
		flooded := false
		for range 60 * perSecond {
			now = now.Add(time.Second / time.Duration(perSecond))
			_, ok := l.allow(now, 100)
			flooded = flooded || !ok && l.flooded()
		}
		if flooded != ends {
			t.Errorf("%d requests a second at a rate of 100: ended: %t", perSecond, flooded)
		}
	}
}
