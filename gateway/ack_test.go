package gateway_test

import (
	"fmt"
	"testing"
	"time"

	"wssgateway/gateway"
)

// TestOfflineInbox: what is sent while a user is away arrives on return, on any
// node, by device.
func TestOfflineInbox(t *testing.T) {
	t.Parallel()
	a, b := startTwo(t)
	send := func(i int) string {
		return a.publish(t, fmt.Sprintf(`{"to":"alice","event":"note","data":%d}`, i))
	}
	phone, _ := a.connect(t, "alice", "device=phone")
	laptop, _ := b.connect(t, "alice", "device=my+laptop")
	first := send(1)
	for _, c := range []*client{phone, laptop} {
		c.expect("message")
		c.send(`{"type":"ack","channel":"user:alice","id":"%s","ref":1}`, first)
		c.expect("acked")
	}
	second := send(2)
	laptop.expect("message")
	laptop.send(`{"type":"ack","channel":"user:alice","id":"%s"}`, second)
	laptop.send(`{"type":"ack","channel":"user:alice","id":"%s","ref":2}`, first) // older: changes nothing
	laptop.expect("acked")
	phone.conn.CloseNow()
	laptop.conn.Close(1000, "")
	send(3)
	send(4)

	for _, device := range []struct {
		query string
		from  int
	}{
		{"device=phone", 2}, {"device=phone&channel=user:alice", 2}, {"device=my+laptop", 3},
		{"device=phone&channel=user:alice@" + second, 3}, {"device=other", 5}, {"", 5},
	} {
		c, hello := b.connect(t, "alice", device.query)
		if got := hello.channel("user:alice"); got["recovered"] != true {
			t.Errorf("%s: %v", device.query, got)
		}
		for i := device.from; i <= 4; i++ {
			if f := c.expect("message"); f["data"] != float64(i) || f.str("event") != "note" {
				t.Fatalf("%s: got %v, want the message %d", device.query, f, i)
			}
		}
		c.send(`{"type":"ping","ref":"end"}`)
		c.expect("pong")
	}
}

func TestAckOfWhatIsGoneIsToldSo(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t), func(cfg *gateway.Config) {
		inbox := cfg.Classes["user"]
		inbox.History.Size = 5
		cfg.Classes["user"] = inbox
	})
	c, _ := n.connect(t, "alice", "device=phone")
	id := n.publish(t, `{"to":"alice","data":0}`)
	c.expect("message")
	c.send(`{"type":"ack","channel":"user:alice","id":"%s","ref":1}`, id)
	c.expect("acked")
	c.conn.CloseNow()
	for i := range 20 {
		n.publish(t, fmt.Sprintf(`{"to":"alice","data":%d}`, i+1))
	}
	_, hello := n.connect(t, "alice", "device=phone")
	if got := hello.channel("user:alice"); got["recovered"] != false {
		t.Errorf("trimmed: %v", got)
	}
	c, _ = n.connect(t, "bob", "device=phone")
	c.send(`{"type":"ack","channel":"user:bob","id":"%d-0","ref":1}`, time.Now().Add(time.Minute).UnixMilli())
	c.expect("acked")
	n.publish(t, `{"to":"bob","data":0}`)
	if _, hello := n.connect(t, "bob", "device=phone"); hello.channel("user:bob")["recovered"] != false {
		t.Errorf("ahead of all: %v", hello)
	}
}

func TestBadAcks(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t))
	c, _ := n.connect(t, "alice", "device=phone&channel=room:1")
	for _, bad := range []string{
		`"channel":"room:1","id":"1-0"`, `"channel":"user:bob","id":"1-0"`, `"id":"1-0"`,
		`"channel":"user:alice"`, `"channel":"user:alice","id":"0"`, `"channel":"user:alice","id":"x"`, `"channel":"user:alice","id":5`,
	} {
		c.send(`{"type":"ack",%s}`, bad)
		c.expectError("bad_request")
	}
	c, _ = n.connect(t, "alice", "")
	c.send(`{"type":"ack","channel":"user:alice","id":"1-0"}`)
	c.expectError("bad_request")
}

// lastID is the highest id there can be.
const lastID = "18446744073709551615-18446744073709551615"

// TestAcksOfTimesToCome: an id that no message has is not kept, as nothing would come
// after it; one that a message has is, whatever the clock says.
func TestAcksOfTimesToCome(t *testing.T) {
	t.Parallel()
	rdb := embedded(t)
	n := startNode(t, "a", rdb)
	c, _ := n.connect(t, "alice", "device=phone")
	id := n.publish(t, `{"to":"alice","data":1}`)
	c.expect("message")
	expectHas(t, c.reply(`{"type":"ack","ref":1,"channel":"user:alice","id":"%s"}`, id), frame{"type": "acked"})
	for _, bad := range []string{lastID, "18446744073709551615-0", fmt.Sprintf("%d-0", time.Now().Add(2*time.Hour).UnixMilli())} {
		expectHas(t, c.reply(`{"type":"ack","ref":1,"channel":"user:alice","id":"%s"}`, bad), frame{"code": "bad_request"})
	}
	c.conn.CloseNow()
	n.publish(t, `{"to":"alice","data":2}`)
	c, hello := n.connect(t, "alice", "device=phone")
	expectHas(t, hello.channel("user:alice"), frame{"recovered": true, "since": id})
	expectHas(t, c.expect("message"), frame{"data": 2.0})

	// As if the clock of Redis had been set back a year ago.
	n.publish(t, `{"to":"bob","data":0}`)
	later := fmt.Sprintf("%d-0", time.Now().AddDate(1, 0, 0).UnixMilli())
	for _, key := range rdb.Keys(t.Context(), "*meta:user:bob").Val() {
		rdb.Set(t.Context(), key, later, time.Hour)
	}
	b, _ := n.connect(t, "bob", "device=phone")
	id = n.publish(t, `{"to":"bob","data":1}`)
	if id < later {
		t.Fatalf("published as %s, want it after %s", id, later)
	}
	b.expect("message")
	expectHas(t, b.reply(`{"type":"ack","ref":1,"channel":"user:bob","id":"%s"}`, id), frame{"type": "acked"})
	expectHas(t, b.reply(`{"type":"ack","ref":1,"channel":"user:bob","id":"%s"}`, lastID), frame{"code": "bad_request"})
}

// TestTheHighestPositionLosesNothing: a client that asks from there is told that it is
// not vouched for, and gets what comes.
func TestTheHighestPositionLosesNothing(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t))
	n.publish(t, `{"channel":"room:1","data":1}`)
	c, hello := n.connect(t, "alice", "channel=room:1@"+lastID+"&channel=user:alice@"+lastID)
	expectHas(t, hello.channel("room:1"), frame{"recovered": false})
	expectHas(t, hello.channel("user:alice"), frame{"recovered": false})
	s, _ := n.connect(t, "bob", "")
	expectHas(t, s.reply(`{"type":"subscribe","ref":1,"channel":"room:1","since":"%s"}`, lastID), frame{"type": "subscribed", "recovered": false})
	for i := range 3 {
		n.publish(t, fmt.Sprintf(`{"channel":"room:1","data":%d}`, i))
		for _, c := range []*client{c, s} {
			expectHas(t, c.expect("message"), frame{"data": float64(i)})
		}
	}
	n.publish(t, `{"to":"alice","data":"psst"}`)
	expectHas(t, c.expect("message"), frame{"data": "psst"})
	expectHas(t, c.reply(`{"type":"history","ref":1,"channel":"room:1","since":"%s"}`, lastID), frame{"type": "history", "recovered": false})
}
