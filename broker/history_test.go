package broker

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// small keeps five messages exactly: a tenth of it is none.
var small = Retention{Size: 5, TTL: time.Hour}

func testPositions(t *testing.T, p pair) {
	ten := p.b.publishMany(t, "ten", 10, keep)
	trimmed := p.b.publishMany(t, "trimmed", 20, small)
	expired := p.expired(t, "expired")
	unissued := p.unissued(t, "unissued")
	future := ID{ten[9].MS + 60_000, 0}
	most := ID{1<<64 - 1, 1<<64 - 1}

	tests := []struct {
		name      string
		channel   string
		since     ID
		recovered bool
		last      ID
		replay    int
	}{
		{"nothing was published", "empty", ID{}, true, ID{}, 0},
		{"a position where nothing was published", "empty", ten[3], false, ID{}, 0},
		{"eight of ten", "ten", ten[7], true, ten[9], 2},
		{"from the start", "ten", ID{}, true, ten[9], 10},
		{"the last", "ten", ten[9], true, ten[9], 0},
		{"in the future", "ten", future, false, ten[9], 0},
		{"in the far future", "ten", most, false, ten[9], 0},
		{"older than what is kept", "trimmed", trimmed[13], false, trimmed[19], 5},
		{"the newest that was trimmed", "trimmed", trimmed[14], true, trimmed[19], 5},
		{"the oldest that is kept", "trimmed", trimmed[15], true, trimmed[19], 4},
		{"from the start of what was trimmed", "trimmed", ID{}, false, trimmed[19], 5},
		{"the last of what has expired", "expired", expired[4], true, expired[4], 0},
		{"within what has expired", "expired", expired[3], false, expired[4], 0},
		{"from the start of what has expired", "expired", ID{}, false, expired[4], 0},
		{"never issued", "unissued", unissued, false, p.last(t, "unissued"), 1},
	}
	for _, n := range []*node{p.a, p.b} {
		for _, tt := range tests {
			h, err := n.Head(t.Context(), tt.channel, tt.since)
			if want := (Head{tt.last, tt.recovered}); err != nil || h != want {
				t.Errorf("%s: Head = %v, %v, want %v", tt.name, h, err, want)
			}
			replay, err := n.Read(t.Context(), tt.channel, tt.since, 1000)
			if err != nil || len(replay) != tt.replay {
				t.Errorf("%s: Read = %d messages, %v, want %d", tt.name, len(replay), err, tt.replay)
			}
			if err == nil && len(replay) > 0 && (replay[0].Prev == tt.since) != tt.recovered {
				t.Errorf("%s: replay follows on %s", tt.name, replay[0].Prev)
			}
		}
	}
	p.afterExpiry(t, expired)
}

// last returns where a channel stands.
func (p pair) last(t testing.TB, channel string) ID {
	t.Helper()
	h, err := p.b.Head(t.Context(), channel, ID{})
	if err != nil {
		t.Fatal(err)
	}
	return h.Last
}

// expired publishes five messages and returns their ids once they have expired.
func (p pair) expired(t testing.TB, channel string) []ID {
	t.Helper()
	list := p.b.publishMany(t, channel, 5, keep)
	stream := p.b.layout.stream(channel)
	if err := p.b.rdb.PExpire(t.Context(), stream, time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, channel+" has expired", func() bool {
		n, err := p.b.rdb.Exists(t.Context(), stream).Result()
		return err == nil && n == 0
	})
	return list
}

// afterExpiry publishes on a channel whose stream has expired: positions from
// before are told apart as they were.
func (p pair) afterExpiry(t *testing.T, expired []ID) {
	p.b.publish(t, "expired", "new", keep)
	for i, since := range expired {
		h, err := p.a.Head(t.Context(), "expired", since)
		if want := i == len(expired)-1; err != nil || h.Recovered != want {
			t.Errorf("after expiry: Head(%d of 5) = %v, %v, want recovered %t", i+1, h, err, want)
		}
	}
}

// unissued returns an id between the last two messages of a channel.
func (p pair) unissued(t testing.TB, channel string) ID {
	t.Helper()
	before := p.b.publish(t, channel, "", keep)
	for {
		id := p.b.publish(t, channel, "", keep)
		if id.MS > before.MS {
			return ID{before.MS, before.Seq + 1}
		}
		before = id
	}
}

func testPositionsAfterFlush(t *testing.T, p pair) {
	old := p.b.publishMany(t, "room", 3, keep)
	for _, n := range []*node{p.a, p.b} {
		n.subscribe(t, "room") // now it knows the life of the data
		n.subscribe(t, "idle")
	}
	p.flush(t)

	check := func(n *node, channel string, since ID, recovered bool) ID {
		t.Helper()
		h, err := n.Head(t.Context(), channel, since)
		if err != nil || h.Recovered != recovered {
			t.Errorf("Head(%s, %s) = %v, %v, want recovered %t", channel, since, h, err, recovered)
		}
		return h.Last
	}
	for _, channel := range []string{"room", "idle"} {
		check(p.a, channel, ID{}, false)
		base := check(p.a, channel, old[2], false)
		check(p.b, channel, base, true)
		fresh := p.b.publishMany(t, channel, 3, keep)
		for _, n := range []*node{p.a, p.b, startNode(t, p.backend.b, p.b.layout.prefix, "late-"+channel)} {
			check(n, channel, base, true)
			check(n, channel, fresh[1], true)
			check(n, channel, ID{}, false)
			check(n, channel, old[2], false)
		}
	}
}

func testRetention(t *testing.T, p pair) {
	for _, tt := range []struct{ size, most int }{{1, 1}, {5, 5}, {20, 22}} {
		r := Retention{Size: tt.size, TTL: time.Minute}
		channel := room(tt.size)
		stream := p.b.layout.stream(channel)
		for i := range 3 * tt.most {
			p.b.publish(t, channel, "x", r)
			n, err := p.b.rdb.XLen(t.Context(), stream).Result()
			if err != nil || int(n) < min(i+1, tt.size) || int(n) > tt.most {
				t.Errorf("size %d: %d of %d messages kept, %v", tt.size, n, i+1, err)
			}
		}
		p.checkTTL(t, stream, r.TTL)
		p.checkTTL(t, p.b.layout.meta(channel), r.TTL+metaTTL)
	}
}

func (p pair) checkTTL(t *testing.T, key string, want time.Duration) {
	t.Helper()
	got, err := p.b.rdb.PTTL(t.Context(), key).Result()
	if err != nil || got > want+want/100 || got < want-patience { // it is not renewed with every message
		t.Errorf("%s expires in %v, %v, want %v", key, got, err, want)
	}
}

func testPages(t *testing.T, p pair) {
	published := p.b.publishMany(t, "room", 25, keep)
	var read []ID
	for after := (ID{}); ; {
		page, err := p.a.Read(t.Context(), "room", after, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page {
			if m.Prev != after {
				t.Errorf("%s follows on %s, want %s", m.ID, m.Prev, after)
			}
			after = m.ID
			read = append(read, m.ID)
		}
		if len(page) < 10 {
			break
		}
	}
	if !slices.Equal(read, published) {
		t.Errorf("read %d messages, published %d", len(read), len(published))
	}
}

// testPagesInBytes: a page ends with the message that reaches its bound in bytes,
// whatever the sizes, so that who reads one knows what it costs (findings H5, H6).
func testPagesInBytes(t *testing.T, p pair) {
	const bound, large = 10_000, 8000
	sizes := []int{0, 1, 30, 0, 0, large, 5, large, large, large, 20_000, 20_000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, large}
	var published []ID
	for _, size := range sizes {
		published = append(published, p.b.publish(t, "sizes", strings.Repeat("x", size), keep))
	}
	for _, limit := range []int{1, 2, 7, 100} {
		var read []ID
		for after, more := (ID{}), true; more; {
			page, err := p.a.ReadPage(t.Context(), "sizes", after, limit, bound)
			if err != nil {
				t.Fatal(err)
			}
			bytes := 0
			for i, m := range page.Messages {
				if bytes >= bound || i >= limit {
					t.Errorf("limit %d: message %d of a page comes after %d bytes", limit, i, bytes)
				}
				if m.Prev != after {
					t.Errorf("%s follows on %s, want %s", m.ID, m.Prev, after)
				}
				bytes += len(m.Payload) + len("p") + len("m") + len(m.Prev.String())
				after = m.ID
				read = append(read, m.ID)
			}
			if bytes < bound && len(page.Messages) < limit && page.More {
				t.Errorf("limit %d: a page of %d messages and %d bytes is said to have been cut", limit, len(page.Messages), bytes)
			}
			more = page.More
		}
		if !slices.Equal(read, published) {
			t.Errorf("limit %d: read %d messages, published %d", limit, len(read), len(published))
		}
	}
	if page, err := p.a.ReadPage(t.Context(), "sizes", ID{1<<64 - 1, 1<<64 - 1}, 10, bound); err != nil || len(page.Messages) > 0 || page.More {
		t.Errorf("after the last id that can be: %v, %v", page, err)
	}
	if page, err := p.a.ReadPage(t.Context(), "no sizes", ID{}, 10, bound); err != nil || len(page.Messages) > 0 || page.More {
		t.Errorf("of a channel that is not there: %v, %v", page, err)
	}
}
