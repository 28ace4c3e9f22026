package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeRosters are rosters whose readings take 20 ms and find what users returns.
func fakeRosters(t *testing.T, users func(channel string) (map[string]int, error)) (*rosters, *atomic.Int32) {
	reads := new(atomic.Int32)
	return &rosters{
		read: func(_ context.Context, channel string) (map[string]int, error) {
			reads.Add(1)
			found, err := users(channel)
			time.Sleep(20 * time.Millisecond) // of the bubble
			return found, err
		},
		life: t.Context(), channels: make(map[string]*roster),
	}, reads
}

func crowd(n int) map[string]int {
	users := make(map[string]int, n)
	for i := range n {
		users[fmt.Sprintf("user-%05d", i)] = 1
	}
	return users
}

// TestAStormOfPresenceCostsOneReadingASecond (finding M2).
func TestAStormOfPresenceCostsOneReadingASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := crowd(50_000)
		rs, reads := fakeRosters(t, func(string) (map[string]int, error) { return all, nil })
		for _, churn := range []bool{false, true} {
			reads.Store(0)
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(10 * time.Millisecond) {
						if churn {
							rs.changed("room:1")
						}
						if got, err := rs.ask(t.Context(), "room:1"); err != nil || got.count != 50_000 || strings.Count(got.members, "user-") != rosterListed {
							t.Errorf("%v", err)
						}
					}
				})
			}
			wg.Wait()
			if n := reads.Load(); n < 3 || n > 7 {
				t.Errorf("churn %v: %d readings in 5 s", churn, n)
			}
		}
		time.Sleep(2 * rosterAge)
		rs.mu.Lock()
		defer rs.mu.Unlock()
		if len(rs.channels) != 0 || rs.kept != 0 {
			t.Errorf("left: %d channels, %d bytes", len(rs.channels), rs.kept)
		}
	})
}

// TestPresenceIsNeverOlderThanWhatTheAskerKnows: a change that was told before somebody
// asks is in the answer, though it came while a reading was under way.
func TestPresenceIsNeverOlderThanWhatTheAskerKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		users := map[string]int{}
		rs, _ := fakeRosters(t, func(string) (map[string]int, error) {
			mu.Lock()
			defer mu.Unlock()
			found := make(map[string]int)
			for u := range users {
				found[u] = 1
			}
			return found, nil
		})
		var wg sync.WaitGroup
		for i := range 50 {
			mu.Lock()
			users[fmt.Sprint(i)] = 1
			mu.Unlock()
			rs.changed("room:1")
			wg.Go(func() {
				if got, err := rs.ask(t.Context(), "room:1"); err != nil || got.count < i+1 {
					t.Errorf("%d users, want at least %d; %v", got.count, i+1, err)
				}
			})
			time.Sleep(7 * time.Millisecond)
		}
		wg.Wait()
	})
}

// TestRostersAreBounded: neither many channels nor large ones take memory without bound.
func TestRostersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs, reads := fakeRosters(t, func(channel string) (map[string]int, error) {
			if channel == "broken" {
				return nil, errors.New("away")
			}
			return crowd(10_000), nil
		})
		var wg sync.WaitGroup
		for i := range 100 { // some 40 MB of answers
			wg.Go(func() {
				if got, err := rs.ask(t.Context(), fmt.Sprint("room:", i)); err != nil || got.count != 10_000 {
					t.Errorf("room %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		rs.mu.Lock()
		if rs.kept > rosterKept || rs.kept < rosterKept/2 {
			t.Errorf("%d bytes are kept", rs.kept)
		}
		rs.mu.Unlock()
		if n := reads.Load(); n != 100 {
			t.Errorf("%d readings", n)
		}
		if _, err := rs.ask(t.Context(), "broken"); err == nil {
			t.Error("what cannot be read is answered")
		}
		rs.mu.Lock()
		for i := len(rs.channels); i < rosterChannels; i++ {
			rs.channels[fmt.Sprint("x:", i)] = &roster{}
		}
		rs.mu.Unlock()
		if _, err := rs.ask(t.Context(), "one:more"); !errors.Is(err, errRosters) {
			t.Errorf("one too many: %v", err)
		}
	})
}
