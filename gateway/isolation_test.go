package gateway_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// hostile opens a WebSocket by hand, without a token unless query has one.
func (n *node) hostile(t *testing.T, query string, header ...string) *rawClient {
	t.Helper()
	r, status, _ := n.rawExchange(t, n.rawRequest(query, header...))
	if status != 101 {
		t.Fatalf("handshake: status %d", status)
	}
	return r
}

// cutFrame returns a frame that says it has size bytes and holds fewer. First is
// its first byte: FIN, reserved bits and opcode.
func cutFrame(first byte, size int, payload []byte) []byte {
	b := []byte{first, 0x80 | 126, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	return append(b, payload...)
}

// deflateStored is the stored block that a text deflates to at the least.
func deflateStored(text string, final byte) []byte {
	b := []byte{final, 0, 0, 0, 0}
	binary.LittleEndian.PutUint16(b[1:], uint16(len(text)))
	binary.LittleEndian.PutUint16(b[3:], ^uint16(len(text)))
	return append(b, text...)
}

const rsv1 = 0x40

// abuse has peers without a token send something each and go away, and returns
// when the node has seen them go.
func (n *node) abuse(t *testing.T, times int, sent []byte, header ...string) {
	t.Helper()
	for range times {
		c := n.hostile(t, "", header...)
		c.write(sent)
		c.nc.Close()
	}
	await(t, func() error {
		if got := n.Stats().Connections; got != 0 {
			return fmt.Errorf("%d connections", got)
		}
		return nil
	})
}

// TestCutMessagesHarmNobodyElse: peers that go away inside a message end their
// own connection and no other (findings C1, A2).
func TestCutMessagesHarmNobodyElse(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string][]byte{
		"between fragments": cutFrame(opText, 7, []byte(`{"type"`)),
		"after a header":    cutFrame(fin|opText, 100, nil),
		"at a full buffer":  cutFrame(fin|opText, 9000, make([]byte, 4096)),
		"inside a payload":  cutFrame(fin|opText, 100, []byte(`{"type":"ping"`)),
		"inside a header":   {fin | opText},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "a", embedded(t))
			n.abuse(t, 20, sent)
			for i := range 5 {
				c, _ := n.connect(t, fmt.Sprint("good", i), "")
				for ref := range 10 {
					c.send(`{"type":"ping","ref":%d}`, ref)
					c.expect("pong")
				}
			}
		})
	}
}

// TestCutMessagesAreNotPublished: a message exists only when its last byte has
// come (findings H1, A3).
func TestCutMessagesAreNotPublished(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t), compressing)
	head := []byte("{\"type\":\"publish\",\"channel\":\"open:1\"}\n")
	half := append(head, bytes.Repeat([]byte("x"), 4096-len(head))...)
	var deflated bytes.Buffer
	w, _ := flate.NewWriter(&deflated, flate.BestSpeed)
	_, _ = w.Write(half)
	_ = w.Flush()
	sub, _ := n.connect(t, "bob", "channel=open:1")
	for name, sent := range map[string][]byte{
		"between fragments":   cutFrame(opBinary, 1000, half[:1000]),
		"at a full buffer":    cutFrame(fin|opBinary, 10_000, half),
		"inside a payload":    cutFrame(fin|opBinary, 10_000, half[:1500]),
		"inside a compressed": cutFrame(fin|rsv1|opBinary, deflated.Len()+100, deflated.Bytes()),
	} {
		c := n.hostile(t, "connect=1&access_token="+token("alice"), "Sec-WebSocket-Extensions", "permessage-deflate")
		c.write(sent)
		c.nc.Close()
		await(t, func() error {
			if got := n.Stats().Connections; got != 1 {
				return fmt.Errorf("%s: %d connections", name, got)
			}
			return nil
		})
	}
	n.publish(t, `{"channel":"open:1","data":"whole"}`)
	if f := sub.expect("message"); f["data"] != "whole" {
		t.Errorf("half a message was published: %d bytes", len(f.str("bytes")))
	}
}

// TestNobodySpeaksForAnother: what a peer sends behind the end of a deflate
// stream is never read as another peer's (findings C2, A1).
func TestNobodySpeaksForAnother(t *testing.T) {
	t.Parallel()
	forged := `{"type":"publish","channel":"open:1","data":"forged"}`
	ping := `{"type":"ping","ref":1}`
	for name, sent := range map[string][]byte{
		"a request behind the end":   append(deflateStored(ping, 1), deflateStored(forged, 1)...),
		"the head of a binary frame": append(deflateStored(ping, 1), deflateStored(forged+"\n"+strings.Repeat(" ", 60000), 0)[:5+len(forged)+1]...),
		"a byte behind the end":      append(deflateStored(ping, 1), 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "a", embedded(t), compressing)
			sub, _ := n.connect(t, "bob", "channel=open:1")
			frame := cutFrame(fin|rsv1|opText, len(sent), sent)
			open := cutFrame(rsv1|opText, len(sent), sent)
			var attackers []*rawClient
			for i := range 20 {
				c := n.hostile(t, "", "Sec-WebSocket-Extensions", "permessage-deflate")
				attackers = append(attackers, c)
				if i%2 == 0 {
					c.write(frame)
				} else {
					c.write(open)
				}
			}
			for i := range 3 {
				alice, _ := n.connectAs(t, "alice", "open:1", 1)
				for ref := range 10 {
					alice.send(`{"type":"ping","ref":%d}`, i*100+ref)
					alice.expect("pong")
				}
			}
			for _, c := range attackers {
				c.nc.Close()
			}
			n.publish(t, `{"channel":"open:1","data":"real"}`)
			if f := sub.expect("message"); f["data"] != "real" {
				t.Errorf("got %v", f)
			}
		})
	}
}
