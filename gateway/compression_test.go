package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"wssgateway/gateway"
)

func compressing(cfg *gateway.Config) { cfg.Compression = true }

// connectAs connects a user with a client that offers compression in a mode.
func (n *node) connectAs(t testing.TB, user, channel string, mode websocket.CompressionMode) (c *client, agreed string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, n.url+"?connect=1&access_token="+token(user)+"&channel="+channel,
		&websocket.DialOptions{CompressionMode: mode, CompressionThreshold: 1})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(1 << 24)
	t.Cleanup(func() { conn.CloseNow() })
	c = &client{t, conn}
	c.expect("connected")
	return c, resp.Header.Get("Sec-WebSocket-Extensions")
}

// TestCompression: clients that compress and clients that do not get the same,
// and a message is compressed once for all.
func TestCompression(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t), compressing)
	const each = 10
	var clients []*client
	for i := range each {
		c, agreed := n.connectAs(t, fmt.Sprint("takeover", i), "open:1", websocket.CompressionContextTakeover)
		if !strings.Contains(agreed, "permessage-deflate") || !strings.Contains(agreed, "server_no_context_takeover") ||
			!strings.Contains(agreed, "client_no_context_takeover") {
			t.Fatalf("agreed on %q", agreed)
		}
		other, _ := n.connectAs(t, fmt.Sprint("none", i), "open:1", websocket.CompressionNoContextTakeover)
		plain, agreed := n.connectAs(t, fmt.Sprint("plain", i), "open:1", websocket.CompressionDisabled)
		if agreed != "" {
			t.Fatalf("agreed on %q with a client that offered nothing", agreed)
		}
		clients = append(clients, c, other, plain)
	}
	sent, packed := n.metric("gateway_sent_bytes_total"), n.metric("gateway_compressed_messages_total")
	long := strings.Repeat("the same words again ", 500)
	n.publish(t, fmt.Sprintf(`{"channel":"open:1","data":%q}`, long))
	n.publish(t, `{"channel":"open:1","data":"short"}`)
	// What a client sends may be compressed, too.
	clients[0].send(`{"type":"publish","channel":"open:1","data":%q}`, "from a client "+long)
	for i, c := range clients {
		for _, want := range []string{long, "short", "from a client " + long} {
			if f := c.expect("message"); f["data"] != want {
				t.Fatalf("client %d: got %d bytes", i, len(f.str("data")))
			}
		}
	}
	await(t, func() error {
		if got := n.metric("gateway_compressed_messages_total") - packed; got != 3 {
			return fmt.Errorf("%v messages were compressed, want 3, for %d connections", got, len(clients))
		}
		return nil
	})
	// A third of them got it plain; for the others it is next to nothing.
	if got := n.metric("gateway_sent_bytes_total") - sent; got < 2*each*float64(len(long)) || got > 2.5*each*float64(len(long)) {
		t.Errorf("%v bytes were sent", got)
	}

	// The history, and what was missed, come as well.
	late, _ := n.connectAs(t, "late", "open:1@0", websocket.CompressionContextTakeover)
	for _, want := range []string{long, "short", "from a client " + long} {
		if f := late.expect("message"); f["data"] != want {
			t.Errorf("replayed %d bytes", len(f.str("data")))
		}
	}
	late.send(`{"type":"history","ref":1,"channel":"open:1","since":"0"}`)
	if messages := late.expect("history")["messages"].([]any); len(messages) != 3 {
		t.Errorf("history of %d", len(messages))
	}
}

// TestCompressionIsOff: it is by default, whatever clients offer.
func TestCompressionIsOff(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	c, agreed := n.connectAs(t, "alice", "open:1", websocket.CompressionContextTakeover)
	if agreed != "" {
		t.Errorf("agreed on %q", agreed)
	}
	n.publish(t, `{"channel":"open:1","data":1}`)
	c.expect("message")
}

// TestCompressedBomb: what counts is the size of a message once it is unpacked.
func TestCompressedBomb(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t), compressing)
	c, _ := n.connectAs(t, "mallory", "open:1", websocket.CompressionContextTakeover)
	if err := c.write(websocket.MessageText, `{"type":"ping","x":"`+strings.Repeat("a", 1<<20)+`"}`); err != nil {
		t.Fatal(err)
	}
	c.expectClose(websocket.StatusMessageTooBig)
	good, _ := n.connectAs(t, "alice", "open:1", websocket.CompressionContextTakeover)
	good.send(`{"type":"ping","ref":1}`)
	good.expect("pong")
}
