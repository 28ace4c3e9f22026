package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"wssgateway/gateway"
	"wssgateway/gateway/transport"
	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// TestMain fails if a goroutine of ours is left once all tests are over.
func TestMain(m *testing.M) {
	if what := os.Getenv(crowdEnv); what != "" {
		if err := runCrowd(what); err != nil {
			fmt.Fprintln(os.Stderr, "crowd:", err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	deadline := time.Now().Add(patience)
	for left := ourGoroutines(); len(left) > 0; left = ourGoroutines() {
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "%d goroutines are left:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			os.Exit(1)
		}
		<-time.After(10 * time.Millisecond)
	}
	os.Exit(code)
}

// ourGoroutines returns the stacks that this module is part of, but for the
// tests' own.
func ourGoroutines() (ours []string) {
	for _, stack := range stacks() {
		if strings.Contains(stack, "wssgateway/") && !strings.Contains(stack, "gateway_test.TestMain") {
			ours = append(ours, stack)
		}
	}
	return ours
}

func stacks() []string {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return strings.Split(string(buf[:n]), "\n\n")
		}
	}
}

// bareClient is a client without goroutines and without manners.
type bareClient struct {
	t testing.TB
	net.Conn
}

// bare does the handshake by hand. What is sent with it comes right behind.
func (n *node) bare(t testing.TB, query, behind string) *bareClient {
	t.Helper()
	nc, err := narrowDialer.Dial("tcp", strings.TrimPrefix(n.public, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	c := &bareClient{t: t, Conn: nc}
	c.write("GET /ws?%s HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n%s", query, behind)
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		if _, err := io.ReadFull(nc, b); err != nil {
			t.Fatalf("handshake: %v after %q", err, head)
		}
		head = append(head, b...)
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		t.Fatalf("handshake: %s", head)
	}
	return c
}

// connectBare connects a user by hand, and has read the reply.
func (n *node) connectBare(t testing.TB, user, query string) *bareClient {
	t.Helper()
	c := n.bare(t, "access_token="+url.QueryEscape(token(user))+"&connect=1&"+query, "")
	if f := c.frame(); !bytes.Contains(f, []byte(`"connected"`)) {
		t.Fatalf("got %q", f)
	}
	return c
}

func (c *bareClient) write(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// frame returns the next frame, which must come, with its header. The server's pings
// come at any time, also before its first reply.
func (c *bareClient) frame() []byte {
	c.t.Helper()
	f, err := c.tryFrame()
	for err == nil && opcode(f) == wire.OpPing {
		f, err = c.tryFrame()
	}
	if err != nil {
		c.t.Fatalf("no frame: %v", err)
	}
	return f
}

func (c *bareClient) tryFrame() ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	return wiretest.ReadFrame(c)
}

func opcode(frame []byte) wire.Opcode { return wire.Opcode(frame[0] & 0x0F) }

// serving counts the goroutines that have to do with connections.
func serving() (n int) {
	for _, stack := range stacks() {
		for _, part := range []string{"wssgateway/gateway", "coder/websocket", "net/http."} {
			if strings.Contains(stack, part) {
				n++
				break
			}
		}
	}
	return n
}

// TestConnectionAtRest counts what a connection costs that does nothing.
func TestConnectionAtRest(t *testing.T) {
	n := startNode(t, "a", embedded(t))
	n.connectBare(t, "alice", "channel=open:1") // what the first one starts stays
	const connections = 200
	before := serving() + transport.IdleWorkers
	atRest := 0 // goroutines per connection
	if runtime.GOOS != "linux" {
		atRest = 1
	}
	clients := make([]*bareClient, connections)
	for i := range clients {
		clients[i] = n.connectBare(t, fmt.Sprintf("user%d", i%10), "channel=open:1")
	}
	await(t, func() error {
		busy := 0
		for _, stack := range stacks() {
			if strings.Contains(stack, "gateway.(*conn)") {
				busy++
			}
		}
		if now := serving(); now > before+connections*atRest || busy != (connections+1)*atRest {
			return fmt.Errorf("%d goroutines for %d connections, %d of them have to do with one", now, connections, busy)
		}
		return nil
	})
	for _, c := range clients {
		c.Close()
	}
	await(t, func() error {
		if now := serving(); now > before {
			return fmt.Errorf("%d goroutines are left, at most %d should be", now, before)
		}
		return nil
	})
}

// TestConnectsAndDrops: connections that end at any moment leave nothing.
func TestConnectsAndDrops(t *testing.T) {
	n := startNode(t, "a", embedded(t), func(cfg *gateway.Config) {
		cfg.Limits.Clients["web"] = gateway.ClientLimits{Timeout: time.Minute}
	})
	const drops = 1000
	request := string(wiretest.ClientFrame(wire.OpText, `{"type":"connect","token":"`+token("alice")+`","channels":{"open:1":"0","open:2":""}}`))
	query := "access_token=" + token("alice") + "&channel=open:1"
	for i := range drops {
		switch i % 8 {
		case 0: // not even a handshake
			nc, err := net.Dial("tcp", strings.TrimPrefix(n.public, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(nc, "GET /ws HTTP/1.1\r\nHo")
			nc.Close()
		case 1:
			n.bare(t, "", "").Close()
		case 2:
			n.bare(t, "", request[:i/8%len(request)]).Close()
		case 3:
			n.bare(t, "", request).Close()
		case 4:
			n.bare(t, query, "").Close()
		case 5:
			n.connectBare(t, "alice", "channel=open:1@0").Close()
		case 6: // by reset
			c := n.connectBare(t, "alice", "channel=open:1&channel=open:2")
			_ = c.Conn.(*net.TCPConn).SetLinger(0)
			c.Close()
		case 7: // in good order, but not waiting for the end
			c := n.connectBare(t, "alice", "channel=open:1")
			c.write("%s", wiretest.ClientFrame(wire.OpClose, "\x03\xe8"))
			c.Close()
		}
	}
	await(t, func() error {
		connections, channels := n.metric("gateway_connections"), n.metric("gateway_channels")
		if connections+channels > 0 || n.sessions.Sessions() > 0 {
			return fmt.Errorf("left: %v connections, %v channels, %d sessions", connections, channels, n.sessions.Sessions())
		}
		return nil
	})
	await(t, func() error {
		if _, user := n.call(t, "GET", "/v1/users/alice", ""); user.(map[string]any)["online"] != false {
			return fmt.Errorf("%v", user)
		}
		for _, stack := range stacks() {
			if strings.Contains(stack, "gateway.(*conn)") || strings.Contains(stack, "gateway.(*socket)") {
				return fmt.Errorf("left: %s", stack)
			}
		}
		return nil
	})
}
