package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// embedded returns a client of a Redis in this process.
func embedded(t *testing.T) redis.UniversalClient {
	t.Helper()
	return redistest.EmbeddedClient(t, redistest.Embedded(t))
}

// startOne starts a node that is alone, on a Redis in this process.
func startOne(t *testing.T, change ...func(*gateway.Config)) *node {
	t.Helper()
	return startNode(t, "a", embedded(t), change...)
}

// startTwo starts two nodes that share a Redis in this process.
func startTwo(t *testing.T, change ...func(*gateway.Config)) (a, b *node) {
	t.Helper()
	m := redistest.Embedded(t)
	return startNode(t, "a", redistest.EmbeddedClient(t, m), change...),
		startNode(t, "b", redistest.EmbeddedClient(t, m), change...)
}

// patient lets a connection send as fast and as badly as a table of requests does.
func patient(cfg *gateway.Config) {
	cfg.Limits.MessagesPerSecond = 1 << 20
	cfg.Limits.BadFrames = 1 << 20
}

// sync waits until all requests so far are handled, and returns the frames that
// came meanwhile.
func (c *client) sync() []frame {
	c.t.Helper()
	c.send(`{"type":"ping","ref":"sync"}`)
	var frames []frame
	for {
		f := c.next()
		if f.str("type") == "pong" && f["ref"] == "sync" {
			return frames
		}
		frames = append(frames, f)
	}
}

// ask sends a request and returns the frames that answer it.
func (c *client) ask(request string) []frame {
	c.t.Helper()
	if err := c.write(websocket.MessageText, request); err != nil {
		c.t.Fatalf("send: %v", err)
	}
	return c.sync()
}

// reply sends a request and returns the one frame that answers it.
func (c *client) reply(format string, args ...any) frame {
	c.t.Helper()
	request := fmt.Sprintf(format, args...)
	frames := slices.DeleteFunc(c.ask(request), func(f frame) bool { return f.str("type") == "message" })
	if len(frames) != 1 {
		c.t.Fatalf("%s got %v, want one reply", request, frames)
	}
	return frames[0]
}

// quiet fails if anything but what is asked for has come.
func (c *client) quiet() {
	c.t.Helper()
	if frames := c.sync(); len(frames) > 0 {
		c.t.Fatalf("got %v, want nothing", frames)
	}
}

// expectMessages returns as many messages, which must be the next frames.
func (c *client) expectMessages(n int) []frame {
	c.t.Helper()
	all := make([]frame, n)
	for i := range all {
		all[i] = c.expect("message")
	}
	return all
}

// has reports whether f has all of want, in which true stands for any value and
// nil for none.
func (f frame) has(want frame) bool {
	for key, value := range want {
		got, ok := f[key]
		switch value {
		case nil:
			if ok {
				return false
			}
		case any(true):
			if !ok {
				return false
			}
		default:
			if got != value {
				return false
			}
		}
	}
	return true
}

// expectHas fails unless f has all of want.
func expectHas(t *testing.T, f, want frame) {
	t.Helper()
	if !f.has(want) {
		t.Errorf("got %v, want %v", f, want)
	}
}

// query builds a query string of pairs.
func query(pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return q.Encode()
}

// connectFrame dials and connects with a frame, whose further fields are given.
func (n *node) connectFrame(t *testing.T, user, fields string) (*client, frame) {
	t.Helper()
	c := n.dial(t, "")
	c.send(`{"type":"connect","ref":"c","token":%q%s}`, token(user), fields)
	return c, c.expect("connected")
}

// names returns the channels that a connected frame lists, sorted.
func (f frame) names() []string {
	channels, _ := f["channels"].(map[string]any)
	return slices.Sorted(maps.Keys(channels))
}

// rawClient is a WebSocket client that can do everything wrong.
type rawClient struct {
	t  *testing.T
	nc net.Conn
	br *bufio.Reader
}

const rawKey = "dGhlIHNhbXBsZSBub25jZQ==" // RFC 6455, section 1.3

// rawRequest returns the bytes of a handshake.
func (n *node) rawRequest(query string, header ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET /ws?%s HTTP/1.1\r\nHost: %s\r\n", query, strings.TrimPrefix(n.public, "http://"))
	b.WriteString("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + rawKey + "\r\n")
	for i := 0; i+1 < len(header); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", header[i], header[i+1])
	}
	b.WriteString("\r\n")
	return b.String()
}

// rawExchange sends bytes as they are and returns status and header of the
// response to them.
func (n *node) rawExchange(t *testing.T, request string) (*rawClient, int, http.Header) {
	t.Helper()
	nc, err := net.Dial("tcp", strings.TrimPrefix(n.public, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	r := &rawClient{t: t, nc: nc, br: bufio.NewReader(nc)}
	r.write([]byte(request))
	resp, err := http.ReadResponse(r.br, nil)
	if err != nil {
		t.Fatalf("no response: %v", err)
	}
	defer resp.Body.Close()
	return r, resp.StatusCode, resp.Header
}

// rawDial connects a user, and takes the connected frame in.
func (n *node) rawDial(t *testing.T, user string, pairs ...string) *rawClient {
	t.Helper()
	r, status, _ := n.rawExchange(t, n.rawRequest(query(append(pairs, "access_token", token(user), "connect", "1")...)))
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %d", status)
	}
	if f := r.text(); f.str("type") != "connected" {
		t.Fatalf("got %v, want connected", f)
	}
	return r
}

func (r *rawClient) write(b []byte) {
	r.t.Helper()
	if _, err := r.nc.Write(b); err != nil {
		r.t.Fatalf("write: %v", err)
	}
}

// First bytes of frames.
const (
	fin       = 0x80
	opCont    = 0x0
	opText    = 0x1
	opBinary  = 0x2
	opClose   = 0x8
	opPing    = 0x9
	opPong    = 0xA
	finText   = fin | opText
	finBinary = fin | opBinary
)

// masked returns a frame as a client sends it.
func masked(first byte, payload string) []byte {
	const maskBit = 0x80
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, maskBit|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
	key := [4]byte{1, 2, 3, 4}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// read returns the next frame of the server.
func (r *rawClient) read() (first byte, payload []byte, err error) {
	_ = r.nc.SetDeadline(time.Now().Add(patience))
	var h [2]byte
	if _, err = io.ReadFull(r.br, h[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(h[1])
	if extended := map[uint64]int{126: 2, 127: 8}[n]; extended > 0 {
		var b [8]byte
		if _, err = io.ReadFull(r.br, b[8-extended:]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(b[:])
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r.br, payload)
	return h[0], payload, err
}

// expect returns the payload of the next frame, which must begin with a byte.
// The server's pings come at any time.
func (r *rawClient) expect(first byte) []byte {
	r.t.Helper()
	got, payload, err := r.read()
	for err == nil && got == fin|opPing {
		got, payload, err = r.read()
	}
	if err != nil {
		r.t.Fatalf("no frame: %v", err)
	}
	if got != first {
		r.t.Fatalf("got a frame %#x %q, want %#x", got, payload, first)
	}
	return payload
}

// text returns the next frame, which must be text.
func (r *rawClient) text() frame {
	r.t.Helper()
	payload := r.expect(finText)
	f := frame{}
	if err := json.Unmarshal(payload, &f); err != nil {
		r.t.Fatalf("frame %q: %v", payload, err)
	}
	return f
}

// expectClose reads on to the close frame, which must have a code, and to the
// end of the connection, which must be orderly: a reset can swallow the frame.
func (r *rawClient) expectClose(code websocket.StatusCode) {
	r.t.Helper()
	for {
		first, payload, err := r.read()
		if err != nil {
			r.t.Fatalf("no close frame: %v", err)
		}
		if first != fin|opClose {
			continue
		}
		if len(payload) < 2 || websocket.StatusCode(binary.BigEndian.Uint16(payload)) != code {
			r.t.Fatalf("closed with %q, want %d", payload, code)
		}
		break
	}
	r.write(masked(fin|opClose, string([]byte{byte(code >> 8), byte(code)})))
	if rest, err := io.ReadAll(r.br); err != nil || len(rest) > 0 {
		r.t.Fatalf("after the close frame: %q, %v", rest, err)
	}
}

// httpDo sends a request and returns status, header and body.
func httpDo(t *testing.T, method, address, body string, header ...string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, bytes.TrimSpace(b)
}

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// cut breaks the connection off without a word.
func (c *client) cut() { _ = c.conn.CloseNow() }
