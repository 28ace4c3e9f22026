package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"wssgateway/gateway"
)

// slowRequest is what a client sends that has more to send, and does not.
type slowRequest struct {
	name, sent string
	admin      bool
	status     int // of the answer, which comes at once
}

const wsUpgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + rawKey + "\r\n"

// TestBodiesAreNotWaitedFor: who announces a body where none is read, and who may
// not call, has an answer and the end of the connection at once (finding H4).
func TestBodiesAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { cfg.HandshakeTimeout = time.Hour })
	key := "Authorization: Bearer " + testAPIKey + "\r\n"
	for _, c := range []slowRequest{
		{"length", "POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", false, 405},
		{"part of it", "POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc", false, 405},
		{"chunked", "POST /ws HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", false, 405},
		{"GET with a body", "GET /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", false, 413},
		{"upgrade with a body", "GET /ws?connect=1 HTTP/1.1\r\nHost: a\r\n" + wsUpgrade + "Content-Length: 1000\r\n\r\n", false, 413},
		{"upgrade, chunked", "GET /ws HTTP/1.1\r\nHost: a\r\n" + wsUpgrade + "Transfer-Encoding: chunked\r\n\r\n", false, 413},
		{"continue", "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", false, 413},
		{"no such path", "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", false, 404},
		{"probe", "GET /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", false, 413},
		{"admin probe", "GET /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", true, 413},
		{"metrics", "GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", true, 413},
		{"admin, no such path", "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", true, 404},
		{"API without a key", "POST /v1/publish HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", true, 401},
		{"API, no such path", "POST /v1/nothing HTTP/1.1\r\nHost: a\r\n" + key + "Content-Length: 1000\r\n\r\n", true, 404},
		{"API, wrong method", "PUT /v1/publish HTTP/1.1\r\nHost: a\r\n" + key + "Content-Length: 1000\r\n\r\n", true, 405},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			nc, answer := n.open(t, c.admin)
			send(t, nc, c.sent)
			resp, err := http.ReadResponse(answer, nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if resp.StatusCode != c.status || !resp.Close {
				t.Errorf("%s, close %v; want %d and the end", resp.Status, resp.Close, c.status)
			}
			if _, err := io.Copy(io.Discard, answer); err != nil {
				t.Errorf("the connection does not end: %v", err)
			}
		})
	}
}

// TestUpgradedConnectionsHaveNoDeadline: what bounds a request does not bound the
// WebSocket that it becomes (finding H4).
func TestUpgradedConnectionsHaveNoDeadline(t *testing.T) {
	t.Parallel()
	const handshake = 300 * time.Millisecond
	n := startOne(t, func(cfg *gateway.Config) { cfg.HandshakeTimeout = handshake })
	var c *client
	await(t, func() (err error) { // a slow machine may need more than one attempt
		c, _, err = n.tryDial(t, "connect=1&access_token="+token("alice"))
		return err
	})
	c.expect("connected")
	for start := time.Now(); time.Since(start) < 3*handshake; {
		c.send(`{"type":"ping","ref":1}`)
		c.expect("pong")
		<-time.After(handshake / 10)
	}
}

// open opens a connection to a node. What is read from it ends in good time.
func (n *node) open(t *testing.T, admin bool) (net.Conn, *bufio.Reader) {
	t.Helper()
	address := n.public
	if admin {
		address = n.api
	}
	nc, err := narrowDialer.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return nc, bufio.NewReader(nc)
}

func send(t *testing.T, nc net.Conn, s string) {
	t.Helper()
	if _, err := fmt.Fprint(nc, s); err != nil {
		t.Fatal(err)
	}
}
