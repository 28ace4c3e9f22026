package gateway_test

import (
	"fmt"
	"testing"

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
	c.send(`{"type":"ack","channel":"user:bob","id":"9999999999999-0","ref":1}`)
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
