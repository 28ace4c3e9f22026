package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"wssgateway/client"
)

// asked is a request that a scripted gateway has got.
type asked struct {
	Type, Channel, Since string
	Ref                  int
	Channels             map[string]string
	At                   time.Time
}

// desk is a gateway that answers as it is told, and keeps what it was asked.
type desk struct {
	mu    sync.Mutex
	asked []asked
	conns []*websocket.Conn
	reply func(n int, r asked) string // to the nth request of that type and channel; without its ref
}

const plainWelcome = `{"type":"connected","session":"s_1","user":"alice","node":"desk","ping":3600,"channels":{}}`

func (d *desk) serve(_ *testing.T, conn *websocket.Conn) {
	d.mu.Lock()
	d.conns = append(d.conns, conn)
	d.mu.Unlock()
	for {
		_, b, err := conn.Read(context.Background())
		r := asked{At: time.Now()}
		if err != nil || json.Unmarshal(b, &r) != nil {
			return
		}
		d.mu.Lock()
		d.asked = append(d.asked, r)
		d.mu.Unlock()
		if reply := d.reply(len(d.of(r.Type, r.Channel)), r); reply != "" {
			say(conn, `{"ref":%d,%s`, r.Ref, reply[1:])
		}
	}
}

// of returns the requests of a type about a channel.
func (d *desk) of(kind, channel string) []asked {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.asked), func(r asked) bool { return r.Type != kind || r.Channel != channel })
}

// say sends something on the newest connection.
func (d *desk) say(format string, args ...any) {
	d.mu.Lock()
	conn := d.conns[len(d.conns)-1]
	d.mu.Unlock()
	say(conn, format, args...)
}

// start runs a client of a desk, in a bubble.
func (d *desk) start(t *testing.T, setup func(*person, *client.Options)) *person {
	t.Helper()
	return run(t, "alice", "", serveMemory(t, scripted(t, d.serve)).over(setup))
}

// pass lets time pass, and what happens in it happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func subscribedReply(channel, last string) string {
	return fmt.Sprintf(`{"type":"subscribed","channel":%q,"last":%q,"recovered":true}`, channel, last)
}

// TestSubscribeIsRetriedUntilItIsAnswered (finding A7).
func TestSubscribeIsRetriedUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	for _, failure := range []struct {
		reply string
		after time.Duration // no second attempt before that
	}{
		{`{"type":"error","code":"unavailable","message":"try again"}`, 0},
		{`{"type":"error","code":"internal","message":"try again"}`, 0},
		{`{"type":"error","code":"rate_limited","message":"too fast","retry_after_ms":3000}`, 3 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			const failures = 12
			d := &desk{reply: func(n int, r asked) string {
				switch {
				case r.Type == "connect":
					return plainWelcome
				case n <= failures:
					return failure.reply
				}
				return subscribedReply(r.Channel, "5-0")
			}}
			p := d.start(t, nil).connected(t)
			s := p.subscribe(t, "room:1")
			pass(10 * time.Minute)
			all := d.of("subscribe", "room:1")
			if len(all) != failures+1 {
				t.Fatalf("%s: asked %d times", failure.reply, len(all))
			}
			for i, r := range all[1:] {
				if waited := r.At.Sub(all[i].At); waited < failure.after || waited > time.Minute {
					t.Errorf("%s: asked again after %v", failure.reply, waited)
				}
			}
			d.say(`{"type":"message","channel":"room:1","id":"6-0","data":1}`)
			synctest.Wait()
			expect(t, "messages", p.data("room:1"), []string{"1"})
			if s.Position() != "6-0" || len(p.news) != 1 {
				t.Errorf("position %s, news %q", s.Position(), p.news)
			}
		})
	}
}

// TestRefusedSubscribeIsTold (finding A7): once, and is not asked for again.
func TestRefusedSubscribeIsTold(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"forbidden", "bad_request", "limit_exceeded"} {
		synctest.Test(t, func(t *testing.T) {
			d := &desk{reply: func(_ int, r asked) string {
				if r.Type == "connect" {
					return plainWelcome
				}
				return fmt.Sprintf(`{"type":"error","code":%q,"message":"no"}`, code)
			}}
			p := d.start(t, nil).connected(t)
			p.subscribe(t, "room:1")
			pass(10 * time.Minute)
			if n := len(d.of("subscribe", "room:1")); n != 1 || p.told("refused room:1 "+code) != 1 {
				t.Errorf("%s: asked %d times, news %q", code, n, p.news)
			}
		})
	}
}

// TestChannelsUnavailableAtConnectAreSubscribedLater (finding A7): those that nobody
// asked for, too, each from where it was.
func TestChannelsUnavailableAtConnectAreSubscribedLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &desk{reply: func(n int, r asked) string {
			switch {
			case r.Type == "connect" && n == 1:
				return `{"type":"connected","session":"s_1","user":"alice","node":"desk","ping":3600,"channels":{
					"room:1":{"last":"5-0","recovered":true},"broadcast":{"last":"7-0","recovered":true},"user:alice":{"error":"unavailable"}}}`
			case r.Type == "connect":
				return `{"type":"connected","session":"s_1","user":"alice","node":"desk","ping":3600,"channels":{
					"room:1":{"error":"unavailable"},"broadcast":{"error":"unavailable"},"user:alice":{"error":"unavailable"}}}`
			}
			return subscribedReply(r.Channel, "9-0")
		}}
		p := d.start(t, nil)
		p.subscribe(t, "room:1")
		p.connected(t)
		pass(time.Minute)
		_ = d.conns[0].Close(1012, "")
		pass(time.Minute)
		for channel, since := range map[string]string{"room:1": "5-0", "broadcast": "7-0", "user:alice": "9-0"} {
			all := d.of("subscribe", channel)
			if len(all) == 0 || all[len(all)-1].Since != since {
				t.Errorf("%s: asked %+v", channel, all)
			}
			d.say(`{"type":"message","channel":%q,"id":"10-0","data":1}`, channel)
			synctest.Wait()
			expect(t, channel, p.data(channel), []string{"1"})
		}
		if n := len(d.of("subscribe", "user:alice")); n != 2 {
			t.Errorf("asked for the inbox %d times", n)
		}
	})
}

// TestUnsubscribeIsRetried (finding A7): else the session stays a member; but not
// once the channel is wanted again.
func TestUnsubscribeIsRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &desk{reply: func(n int, r asked) string {
			switch {
			case r.Type == "connect":
				return plainWelcome
			case r.Type == "subscribe":
				return subscribedReply(r.Channel, "5-0")
			case r.Channel == "room:1" && n > 3:
				return `{"type":"unsubscribed","channel":"room:1"}`
			}
			return `{"type":"error","code":"unavailable","message":"try again"}`
		}}
		p := d.start(t, nil).connected(t)
		one, two := p.subscribe(t, "room:1"), p.subscribe(t, "room:2")
		synctest.Wait()
		one.Unsubscribe()
		two.Unsubscribe()
		p.subscribe(t, "room:2")
		pass(10 * time.Minute)
		if n, m := len(d.of("unsubscribe", "room:1")), len(d.of("unsubscribe", "room:2")); n != 4 || m != 1 {
			t.Errorf("left %d and %d times", n, m)
		}
		d.say(`{"type":"message","channel":"room:2","id":"6-0","data":1}`)
		synctest.Wait()
		expect(t, "messages", p.data("room:2"), []string{"1"})
	})
}

// TestAnEarlierSubscriptionDoesNotAnswerForALater (finding A7): what still comes of
// one that has ended is not the next one's.
func TestAnEarlierSubscriptionDoesNotAnswerForALater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d := &desk{}
		d.reply = func(n int, r asked) string {
			switch {
			case r.Type == "connect":
				return plainWelcome
			case r.Type == "unsubscribe":
				return `{"type":"unsubscribed","channel":"room:1"}`
			case n == 1:
				<-release
				d.say(`{"ref":%d,%s`, r.Ref, subscribedReply("room:1", "5-0")[1:])
				d.say(`{"type":"message","channel":"room:1","id":"4-0","data":"replayed"}`)
				return ""
			}
			return `{"type":"subscribed","channel":"room:1","last":"8-0","recovered":true}`
		}
		p := d.start(t, nil).connected(t)
		p.subscribe(t, "room:1", "0").Unsubscribe()
		s := p.subscribe(t, "room:1")
		close(release)
		synctest.Wait()
		if got := p.data("room:1"); len(got) > 0 || s.Position() != "8-0" {
			t.Errorf("got %q, position %s", got, s.Position())
		}
	})
}

// TestAllThatIsKeptIsAskedForUntilSomethingComes (finding B11): "0" is always
// recovered, 0-0 is not.
func TestAllThatIsKeptIsAskedForUntilSomethingComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &desk{reply: func(int, asked) string {
			return `{"type":"connected","session":"s_1","user":"alice","node":"desk","ping":3600,"channels":{"room:1":{"last":"5-0","recovered":true}}}`
		}}
		p := d.start(t, nil)
		s := p.subscribe(t, "room:1", "0")
		p.connected(t)
		if s.Position() != "0" {
			t.Errorf("position %q", s.Position())
		}
		_ = d.conns[0].Close(1012, "")
		pass(time.Minute)
		d.say(`{"type":"message","channel":"room:1","id":"1-0","data":1}`)
		synctest.Wait()
		_ = d.conns[1].Close(1012, "")
		pass(time.Minute)
		var from []string
		for _, r := range d.of("connect", "") {
			from = append(from, r.Channels["room:1"])
		}
		expect(t, "positions", from, []string{"0", "0", "1-0"})
	})
}

// TestPositionOfOtherData: the lower one of what was sent and what there is.
func TestPositionOfOtherData(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &desk{reply: func(int, asked) string {
			return `{"type":"connected","session":"s_1","user":"alice","node":"desk","ping":3600,"channels":{"room:1":{"last":"5-0","recovered":false}}}`
		}}
		p := d.start(t, nil)
		s := p.subscribe(t, "room:1", "9-0")
		p.connected(t)
		synctest.Wait()
		if s.Position() != "5-0" || p.told("gap room:1") != 1 {
			t.Errorf("position %q, news %q", s.Position(), p.news)
		}
	})
}
