package client_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wssgateway/client"
)

// publishAll publishes numbers at the same time, and returns when all were acknowledged.
func (p *person) publishAll(t *testing.T, channel string, n int) {
	t.Helper()
	var publishing sync.WaitGroup
	for i := range n {
		publishing.Go(func() {
			if _, err := p.Publish(t.Context(), client.Message{Channel: channel, Data: strconv.AppendInt(nil, int64(i), 10)}); err != nil {
				t.Errorf("publish %d: %v", i, err)
			}
		})
	}
	publishing.Wait()
}

// TestABurstOfPublishes (finding R14): 1,000 at once, where the gateway takes 200 and
// then 100 a second. Each is stored once, and the connection lasts.
func TestABurstOfPublishes(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	bob := run(t, "bob", n.addr, nil)
	bob.subscribe(t, "room:1")
	bob.connected(t)
	alice := run(t, "alice", n.addr, nil).connected(t)
	start := time.Now()
	alice.publishAll(t, "room:1", 1000)
	t.Logf("took %v", time.Since(start))
	await(t, "all", func() bool { return len(bob.data("room:1")) >= 1000 })
	seen := make(map[string]int)
	for _, data := range bob.data("room:1") {
		seen[data]++
	}
	if len(seen) != 1000 || len(bob.data("room:1")) != 1000 {
		t.Errorf("%d messages, %d different", len(bob.data("room:1")), len(seen))
	}
	if len(alice.news) != 1 {
		t.Errorf("news %q", alice.news)
	}
}

// rates answers publishes as a gateway of that many requests a second does, and counts.
type rates struct {
	rate             float64
	used             float64
	at               time.Time
	inARow, most     int // refused
	refused, allowed int
}

func (l *rates) reply(_ int, r asked) string {
	if r.Type == "connect" {
		return plainWelcome
	}
	l.used = max(0, l.used-r.At.Sub(l.at).Seconds()*l.rate)
	l.at = r.At
	if after := (l.used + 1 - 2*l.rate) / l.rate; after > 0 {
		l.refused++
		l.inARow++
		l.most = max(l.most, l.inARow)
		return fmt.Sprintf(`{"type":"error","code":"rate_limited","message":"too many requests","retry_after_ms":%d}`, max(1, int(after*1000)))
	}
	l.used++
	l.allowed++
	l.inARow = 0
	return `{"type":"published","id":"1-0"}`
}

// TestPublishesAreSentAtTheRateOfTheGateway (finding R14): whatever that is. They are
// neither refused much, nor slower by much than they might be.
func TestPublishesAreSentAtTheRateOfTheGateway(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{1, 10, 100, 1000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &rates{rate: rate}
				p := (&desk{reply: l.reply}).start(t, nil).connected(t)
				n := min(2000, int(rate*150))
				start := time.Now()
				p.publishAll(t, "room:1", n)
				took, least := time.Since(start).Seconds(), (float64(n)-2*rate)/rate
				if l.most >= 100 || l.refused > n/5+2*64 || l.allowed != n || took > 1.5*least+3 {
					t.Errorf("%d of %d allowed, %d refused, %d in a row; took %.1f s of at least %.1f", l.allowed, n, l.refused, l.most, took, least)
				}
			})
		})
	}
}

// TestPublishesThatAreGivenUpStillCount (finding R14): who does not wait for long cannot
// have the connection closed either.
func TestPublishesThatAreGivenUpStillCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &desk{reply: func(_ int, r asked) string {
			if r.Type == "connect" {
				return plainWelcome
			}
			return "" // not for as long as anybody waits
		}}
		p := d.start(t, nil).connected(t)
		for range 10 {
			var publishing sync.WaitGroup
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			for range 100 {
				publishing.Go(func() {
					if _, err := p.Publish(ctx, client.Message{Channel: "room:1"}); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("published: %v", err)
					}
				})
			}
			publishing.Wait()
			cancel()
		}
		synctest.Wait()
		if n := len(d.of("publish", "room:1")); n >= 100 {
			t.Errorf("%d requests without an answer", n)
		}
	})
}
