package gateway

import (
	"slices"
	"testing"
	"time"
)

func TestHandoverIsEven(t *testing.T) {
	const window = 20 * time.Second
	for _, n := range []int{0, 1, 2, 7, 1000} {
		steps := planHandover(n, window)
		if len(steps) != 2*n {
			t.Fatalf("%d steps for %d connections", len(steps), n)
		}
		var moves []time.Duration
		asked := make(map[int]step)
		last := time.Duration(0)
		for _, s := range steps {
			if s.at < last || s.at > window {
				t.Fatalf("step at %v after one at %v", s.at, last)
			}
			last = s.at
			if !s.ask {
				if end := asked[s.conn].end; s.at != end || end == 0 {
					t.Errorf("closed at %v, was told %v", s.at, end)
				}
				continue
			}
			if s.at > s.move || s.move-s.at > window/10 || s.end-s.move < window/10 {
				t.Errorf("asked at %v to move at %v, to be closed at %v", s.at, s.move, s.end)
			}
			asked[s.conn] = s
			moves = append(moves, s.move)
		}
		slices.Sort(moves)
		for i, move := range moves {
			if want := time.Duration(i) * window * 85 / 100 / time.Duration(n); (move - want).Abs() > time.Millisecond {
				t.Errorf("%d of %d moves at %v, want %v", i, n, move, want)
			}
		}
	}
}

func TestDrainWindowLeavesTimeToExit(t *testing.T) {
	for _, c := range []struct{ delay, timeout, want time.Duration }{
		{5 * time.Second, 30 * time.Second, 22500 * time.Millisecond},
		{0, 2 * time.Second, 1800 * time.Millisecond},
		{5 * time.Second, 5*time.Minute + 5*time.Second, 5*time.Minute - 2500*time.Millisecond},
	} {
		cfg := Config{DrainDelay: c.delay, DrainTimeout: c.timeout}
		if got := cfg.drainWindow(); got != c.want {
			t.Errorf("%v of %v: window of %v, want %v", c.delay, c.timeout, got, c.want)
		}
	}
}
