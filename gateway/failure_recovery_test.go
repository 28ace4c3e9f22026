package gateway_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// recovery is what a client that comes with a position is told and gets.
type recovery struct {
	recovered bool
	last      string // "none" if there is none
	replayed  string // data of the messages, joined
}

// recoverer comes to a channel with positions, in every way that there is.
type recoverer struct {
	t   *testing.T
	n   *node
	rdb redis.UniversalClient
}

// expect fails unless a client that comes with a position is answered so.
func (r recoverer) expect(channel, since string, want recovery) {
	r.t.Helper()
	bearer := "access_token=" + token("alice")
	at := url.QueryEscape(channel)
	if since != "" {
		at += "@" + since
	}
	for _, way := range []struct {
		name, query, send, reply string
	}{
		{"query", bearer + "&channel=" + at, "", "connected"},
		{"connect", bearer, fmt.Sprintf(`{"type":"connect","channels":{%q:%q}}`, channel, since), "connected"},
		{"subscribe", bearer + "&connect=1", fmt.Sprintf(`{"type":"subscribe","channel":%q,"since":%q}`, channel, since), "subscribed"},
		{"resubscribe", bearer + "&channel=" + channel, fmt.Sprintf(`{"type":"subscribe","channel":%q,"since":%q}`, channel, since), "subscribed"},
	} {
		c := r.n.dial(r.t, way.query)
		if way.send != "" {
			if way.reply == "subscribed" {
				c.expect("connected")
			}
			c.send("%s", way.send)
		}
		reply := c.expect(way.reply)
		if way.reply == "connected" {
			reply = reply.channel(channel)
		}
		if got := r.follow(c, channel, reply); got != want {
			r.t.Errorf("%s, %s at %q: got %+v, want %+v", way.name, channel, since, got, want)
		}
		c.conn.CloseNow()
	}
}

// end is the data of the message that marks the end of a replay.
const end = "the end"

// follow reads what is replayed. A message of no history is kept back until the
// replay is over, so it marks the end.
func (r recoverer) follow(c *client, channel string, reply frame) recovery {
	r.t.Helper()
	if err := r.rdb.Publish(context.Background(), "gw:live:"+channel, fmt.Sprintf(`{"data":%q}`, end)).Err(); err != nil {
		r.t.Fatal(err)
	}
	got := recovery{last: "none"}
	got.recovered, _ = reply["recovered"].(bool)
	if last, ok := reply["last"]; ok {
		got.last = fmt.Sprint(last)
	}
	var replayed []string
	for {
		f := c.next()
		switch {
		case f.str("channel") != channel: // the inbox and the broadcast may be reset
		case f.str("data") == end:
			got.replayed = strings.Join(replayed, " ")
			return got
		case f.str("type") == "message":
			replayed = append(replayed, fmt.Sprint(f["data"]))
		default:
			replayed = append(replayed, f.str("type"))
		}
	}
}

// nextOf returns the next frame of a channel but the marks of recoverer.
func (c *client) nextOf(channel string) frame {
	c.t.Helper()
	for {
		if f := c.next(); f.str("channel") == channel && f.str("data") != end {
			return f
		}
	}
}

// publishMany publishes 1, 2, … n and returns the ids, that of n at n.
func (r recoverer) publishMany(channel string, n int) []string {
	r.t.Helper()
	ids := []string{"0-0"}
	for i := 1; i <= n; i++ {
		ids = append(ids, r.n.publish(r.t, fmt.Sprintf(`{"channel":%q,"data":%d}`, channel, i)))
	}
	return ids
}

// awaitNobody waits until the node has left a channel: what is published then is
// known to it before the next client is.
func (r recoverer) awaitNobody(channel string) {
	r.t.Helper()
	live := "gw:live:" + channel
	await(r.t, func() error {
		counts, err := r.rdb.PubSubNumSub(r.t.Context(), live).Result()
		if err == nil && counts[live] > 0 {
			err = fmt.Errorf("%s has a subscriber", live)
		}
		return err
	})
}

func TestRecovery(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		r := recoverer{t, startNode(t, "a", connect()), connect()}
		const future = "99999999999999-0"

		r.expect("open:empty", "", recovery{true, "0-0", ""})
		r.expect("open:empty", "0", recovery{true, "0-0", ""})
		r.expect("open:empty", "0-0", recovery{true, "0-0", ""})
		r.expect("open:empty", future, recovery{false, "0-0", ""})

		ten := r.publishMany("open:ten", 10)
		const all = "1 2 3 4 5 6 7 8 9 10"
		r.expect("open:ten", "", recovery{true, ten[10], ""})
		r.expect("open:ten", "0", recovery{true, ten[10], all})
		r.expect("open:ten", "0-0", recovery{true, ten[10], all})
		r.expect("open:ten", ten[8], recovery{true, ten[10], "9 10"})
		r.expect("open:ten", ten[10], recovery{true, ten[10], ""})
		r.expect("open:ten", future, recovery{false, ten[10], ""})
		r.expect("open:ten", "1-0", recovery{false, ten[10], all}) // never issued

		many := r.publishMany("open:trimmed", 34)
		const left = "24 25 26 27 28 29 30 31 32 33 34"
		r.expect("open:trimmed", "0", recovery{true, many[34], left})
		r.expect("open:trimmed", "0-0", recovery{false, many[34], left})
		r.expect("open:trimmed", many[22], recovery{false, many[34], left})
		r.expect("open:trimmed", many[23], recovery{true, many[34], left}) // gone, and nothing after it
		r.expect("open:trimmed", many[30], recovery{true, many[34], "31 32 33 34"})

		r.expect("plain:1", "", recovery{true, "none", ""})
		r.expect("plain:1", "0", recovery{true, "none", ""})
		r.expect("plain:1", "0-0", recovery{false, "none", ""})
		r.expect("plain:1", ten[8], recovery{false, "none", ""})
	})
}

func TestRecoveryAfterHistoryExpired(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		r := recoverer{t, startNode(t, "a", connect()), connect()}
		stays, _ := r.n.connect(t, "bob", "channel=open:1") // another one stays subscribed
		for _, channel := range []string{"open:1", "open:2"} {
			watched := channel == "open:1"
			seen := func(data float64) { // what is published has also come to the node
				if f := stays.nextOf("open:1"); f["data"] != data {
					t.Errorf("got %v, want %v", f, data)
				}
			}
			ids := r.publishMany(channel, 3)
			for i := 1; watched && i <= 3; i++ {
				seen(float64(i))
			}
			// What time does to a stream, in time for the test.
			if n, err := r.rdb.Del(t.Context(), "gw:{0}:stream:"+channel).Result(); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			r.expect(channel, "", recovery{true, ids[3], ""})
			r.expect(channel, "0", recovery{true, ids[3], ""})
			r.expect(channel, ids[3], recovery{true, ids[3], ""})
			r.expect(channel, ids[2], recovery{false, ids[3], ""})
			r.expect(channel, "0-0", recovery{false, ids[3], ""})
			if !watched {
				r.awaitNobody(channel)
			}
			next := r.n.publish(t, fmt.Sprintf(`{"channel":%q,"data":4}`, channel))
			if watched {
				seen(4)
			}
			r.expect(channel, ids[3], recovery{true, next, "4"})
			r.expect(channel, ids[2], recovery{false, next, "4"})
		}
	})
}

// TestRecoveryAfterFlush: what clients knew before Redis lost its data is never
// vouched for, whether the node has noticed already or not.
func TestRecoveryAfterFlush(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		r := recoverer{t, startNode(t, "a", connect()), connect()}
		ids := r.publishMany("open:1", 5)
		empty, hello := r.n.connect(t, "carol", "channel=open:empty")
		if last := hello.channel("open:empty").str("last"); last != "0-0" {
			t.Fatalf("last is %s", last)
		}
		stays, _ := r.n.connect(t, "bob", "channel=open:2@0")
		two := r.publishMany("open:2", 2)
		for range 2 {
			stays.expect("message")
		}
		if err := r.rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		reset := stays.nextOf("open:2")
		if reset.str("type") != "reset" || !newer(reset.str("last"), two[2]) {
			t.Errorf("got %v after %v", reset, two)
		}
		// Where a channel stands on which nothing was published since.
		epoch := reset.str("last")
		r.expect("open:1", "", recovery{true, epoch, ""})
		r.expect("open:1", epoch, recovery{true, epoch, ""})
		r.expect("open:1", "0", recovery{true, epoch, ""})
		r.expect("open:1", "0-0", recovery{false, epoch, ""})
		r.expect("open:1", ids[5], recovery{false, epoch, ""})
		r.expect("open:2", two[2], recovery{false, epoch, ""})

		r.awaitNobody("open:1")
		after := r.publishMany("open:1", 2)
		r.expect("open:1", epoch, recovery{true, after[2], "1 2"})
		r.expect("open:1", ids[5], recovery{false, after[2], "1 2"})
		r.expect("open:1", "0-0", recovery{false, after[2], "1 2"})
		r.expect("open:1", after[1], recovery{true, after[2], "2"})

		// Who stayed goes on; who had seen nothing has missed nothing.
		m := r.n.publish(t, `{"channel":"open:2","data":"x"}`)
		if f := stays.nextOf("open:2"); f.str("id") != m {
			t.Errorf("got %v", f)
		}
		m = r.n.publish(t, `{"channel":"open:empty","data":"x"}`)
		f := empty.nextOf("open:empty")
		if f.str("type") == "reset" { // also allowed: nobody can tell
			f = empty.nextOf("open:empty")
		}
		if f.str("id") != m {
			t.Errorf("got %v", f)
		}
	})
}

// TestPositionRightAfterFlush comes back before the node can have noticed.
func TestPositionRightAfterFlush(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		r := recoverer{t, startNode(t, "a", connect()), connect()}
		ids := r.publishMany("open:1", 5)
		if err := r.rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		c, hello := r.n.connect(t, "alice", "channel=open:1@"+ids[5]+"&channel=open:2@0-0")
		for _, channel := range []string{"open:1", "open:2"} {
			if f := hello.channel(channel); f["recovered"] != false {
				t.Errorf("%s: %v", channel, f)
			}
		}
		m := r.n.publish(t, `{"channel":"open:1","data":6}`)
		f := c.nextOf("open:1")
		for f.str("type") == "reset" {
			f = c.nextOf("open:1")
		}
		if f.str("id") != m {
			t.Errorf("got %v", f)
		}
	})
}
