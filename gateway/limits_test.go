package gateway_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"

	"wssgateway/gateway"
)

const testFrameSize = 2048

func smallFrames(cfg *gateway.Config) { cfg.Limits.FrameSize = testFrameSize }

// padded returns a ping of exactly n bytes.
func padded(n int) string {
	const start, end = `{"type":"ping","ref":1,"x":"`, `"}`
	return start + strings.Repeat("x", n-len(start)-len(end)) + end
}

// fragments cuts a message into frames of at most n bytes.
func fragments(op byte, message string, n int) []byte {
	var b []byte
	for len(message) > n {
		b = append(b, masked(op, message[:n])...)
		op, message = opCont, message[n:]
	}
	return append(b, masked(fin|op, message)...)
}

func TestFrameSize(t *testing.T) {
	t.Parallel()
	n := startOne(t, smallFrames)
	binary := func(size int) string {
		const line = `{"type":"ping","ref":1}` + "\n"
		return line + strings.Repeat("\x00", size-len(line))
	}
	for name, build := range map[string]func(size int) []byte{
		"text":              func(size int) []byte { return masked(finText, padded(size)) },
		"text in fragments": func(size int) []byte { return fragments(opText, padded(size), 100) },
		"two fragments":     func(size int) []byte { return fragments(opText, padded(size), size-1) },
		"binary":            func(size int) []byte { return masked(finBinary, binary(size)) },
		"binary fragments":  func(size int) []byte { return fragments(opBinary, binary(size), 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{testFrameSize - 1, testFrameSize} {
				r := n.rawDial(t, "alice")
				r.write(build(size))
				expectHas(t, r.text(), frame{"type": "pong"})
				r.write(build(size)) // the limit is each message's
				expectHas(t, r.text(), frame{"type": "pong"})
			}
			for _, size := range []int{testFrameSize + 1, testFrameSize + 2, 2 * testFrameSize, 10 * testFrameSize, 1 << 20} {
				r := n.rawDial(t, "alice")
				// What the server does not read must not keep it from telling.
				go func() { _, _ = r.nc.Write(build(size)) }()
				r.expectClose(websocket.StatusMessageTooBig)
			}
		})
	}
}

func TestFrameOfAnnouncedSizeIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	n := startOne(t, smallFrames)
	for _, size := range []string{"\x00\x00\x00\x00\x7f\xff\xff\xff", "\x7f\xff\xff\xff\xff\xff\xff\xff"} {
		r := n.rawDial(t, "alice")
		r.write([]byte("\x81\xff" + size + "\x00\x00\x00\x00" + strings.Repeat("x", testFrameSize+1)))
		r.expectClose(websocket.StatusMessageTooBig)
	}
	r := n.rawDial(t, "alice")
	r.write([]byte("\x81\xff" + "\x80\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00"))
	r.expectClose(websocket.StatusProtocolError)
}

func TestTextMustBeUTF8(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	for name, bytes := range map[string][]byte{
		"text":              masked(finText, "{\"type\":\"ping\",\"x\":\"\xff\"}"),
		"not even JSON":     masked(finText, "\xc3\x28"),
		"surrogate":         masked(finText, "\"\xed\xa0\x80\""),
		"overlong":          masked(finText, "\"\xc0\xaf\""),
		"cut":               masked(finText, "\"\xe2\x82"),
		"second fragment":   fragments(opText, "{\"type\":\"ping\",\"x\":\"\xff\"}", 12),
		"cut at a fragment": append(masked(opText, "\"\xe2\x82"), masked(fin|opCont, "x\"")...),
	} {
		t.Run(name, func(t *testing.T) {
			r := n.rawDial(t, "alice")
			r.write(bytes)
			r.expectClose(websocket.StatusInvalidFramePayloadData)
		})
	}
	r := n.rawDial(t, "alice")
	r.write(fragments(opText, `{"type":"ping","ref":"é😀"}`, 1)) // cut inside of characters
	expectHas(t, r.text(), frame{"type": "pong", "ref": "é😀"})
}

func TestProtocolErrors(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	ping := `{"type":"ping","ref":1}`
	unmasked := func(first byte, payload string) []byte { return append([]byte{first, byte(len(payload))}, payload...) }
	for name, bytes := range map[string][]byte{
		"unmasked text":           unmasked(finText, ping),
		"unmasked ping":           unmasked(fin|opPing, "x"),
		"unmasked close":          unmasked(fin|opClose, "\x03\xe8"),
		"first reserved bit":      masked(finText|0x40, ping),
		"second reserved bit":     masked(finText|0x20, ping),
		"third reserved bit":      masked(finText|0x10, ping),
		"reserved bit of a ping":  masked(fin|opPing|0x40, ""),
		"unknown data opcode":     masked(fin|0x3, ping),
		"unknown control opcode":  masked(fin|0xB, ""),
		"fragmented ping":         masked(opPing, "x"),
		"long ping":               masked(fin|opPing, strings.Repeat("x", 126)),
		"long close":              masked(fin|opClose, "\x03\xe8"+strings.Repeat("x", 124)),
		"close with half a code":  masked(fin|opClose, "\x03"),
		"close with a bad code":   masked(fin|opClose, "\x03\xed"), // 1005
		"continuation of nothing": masked(fin|opCont, ping),
		"new message too early":   append(masked(opText, ping[:5]), masked(finText, ping)...),
	} {
		t.Run(name, func(t *testing.T) {
			r := n.rawDial(t, "alice")
			r.write(append(bytes, masked(finText, ping)...))
			r.expectClose(websocket.StatusProtocolError)
		})
	}
}

func TestControlFrames(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	r := n.rawDial(t, "alice")
	for _, payload := range []string{"", "x", "\x00\xff\n", strings.Repeat("p", 125)} {
		r.write(masked(fin|opPing, payload))
		if got := r.expect(fin | opPong); string(got) != payload {
			t.Errorf("pong %q to ping %q", got, payload)
		}
	}
	r.write(masked(fin|opPong, "unasked"))

	// Between fragments, too; of pings that come together the last one is answered.
	message := `{"type":"ping","ref":"fragments"}`
	for i := range len(message) {
		op := byte(opCont)
		switch i {
		case 0:
			op = opText
		case len(message) - 1:
			op |= fin
		}
		b := masked(op, message[i:i+1])
		if op&fin == 0 {
			b = append(b, masked(opCont, "")...)
		}
		if i%4 == 0 && op&fin == 0 {
			b = append(b, masked(fin|opPing, "before")...)
			b = append(b, masked(fin|opPing, fmt.Sprint(i))...)
		}
		r.write(b)
		if i%4 == 0 && op&fin == 0 {
			if got := r.expect(fin | opPong); string(got) != fmt.Sprint(i) {
				t.Fatalf("pong %q, want %d", got, i)
			}
		}
	}
	expectHas(t, r.text(), frame{"ref": "fragments"})

	// Byte by byte it is the same.
	slow := n.rawDial(t, "bob")
	for _, c := range append(masked(fin|opPing, "slow"), masked(finText, `{"type":"ping","ref":1}`)...) {
		slow.write([]byte{c})
	}
	if got := slow.expect(fin | opPong); string(got) != "slow" {
		t.Errorf("pong %q", got)
	}
	expectHas(t, slow.text(), frame{"type": "pong"})

	// A close is answered with the same code.
	for _, payload := range []string{"\x03\xe8", "\x03\xe8bye", "\x03\xe9", "\x0f\xa0", ""} {
		r := n.rawDial(t, "carol")
		r.write(masked(fin|opClose, payload))
		got := r.expect(fin | opClose)
		if len(got) > 2 {
			got = got[:2]
		}
		if want := payload[:min(2, len(payload))]; string(got) != want {
			t.Errorf("close %q answered with %q", payload, got)
		}
	}
}

func TestManySmallMessagesInOneWrite(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	r := n.rawDial(t, "alice")
	const count = 3000
	var b []byte
	for i := range count {
		b = append(b, masked(finText, fmt.Sprintf(`{"type":"ping","ref":%d}`, i))...)
	}
	go func() { _, _ = r.nc.Write(b) }()
	for i := range count {
		expectHas(t, r.text(), frame{"type": "pong", "ref": float64(i)})
	}
}

func TestMessagesPerSecond(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { cfg.Limits.MessagesPerSecond = 5 })
	c := n.dial(t, "access_token="+token("alice"))
	c.send(`{"type":"connect"}`)
	c.expect("connected")
	// Twice the rate at once, of which connect has taken one, unless it was long ago.
	const sent = 12
	var pings []string
	for i := range sent {
		pings = append(pings, fmt.Sprintf(`{"type":"ping","ref":%d}`, i))
	}
	start := time.Now()
	c.send("[%s]", strings.Join(pings, ","))
	granted := 0
	for i := range sent {
		f := c.next()
		expectHas(t, f, frame{"ref": float64(i)})
		if f.str("type") == "pong" {
			granted++
			continue
		}
		retry, _ := f["retry_after_ms"].(float64)
		if f.str("code") != "rate_limited" || retry < 1 || retry > 200 {
			t.Errorf("got %v", f)
		}
	}
	if more := int(5 * time.Since(start).Seconds()); granted < 9 || granted > 10+more {
		t.Errorf("%d of %d were granted", granted, sent)
	}
	await(t, func() error { // the rate itself is granted
		c.send(`{"type":"ping","ref":"again"}`)
		if f := c.next(); f.str("type") != "pong" {
			return fmt.Errorf("got %v", f)
		}
		<-time.After(20 * time.Millisecond) // or each attempt would count for the worse
		return nil
	})
	// Each request of an array counts, and a hundred refused in a row are too many.
	c.send(`[{"type":"ping","ref":1}%s]`, strings.Repeat(`,{"type":"publish","channel":"room:1","data":1,"ref":"r"}`, 99))
	refused := 0
	for {
		f, err := c.read()
		if err != nil {
			if websocket.CloseStatus(err) != 4029 {
				t.Fatal(err)
			}
			break
		}
		if f.str("code") == "rate_limited" {
			refused++
		}
		_ = c.write(websocket.MessageText, `{"type":"ping","ref":"more"}`) // also after the last one that counts
	}
	if refused < 100 {
		t.Errorf("closed after %d", refused)
	}
}

func TestBadFramesInARow(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { cfg.Limits.MessagesPerSecond = 1 << 20 })
	c, _ := n.connect(t, "alice", "")
	kinds := []string{`x`, `{"type":"what"}`, `{"type":"publish"}`, `[]`, `{"type":"ping","ref":{}}`}
	bad := func(count int) {
		for i := range count {
			if err := c.write(websocket.MessageText, kinds[i%len(kinds)]); err != nil {
				t.Fatal(err)
			}
			c.expectError("bad_request")
		}
	}
	bad(99)
	c.send(`{"type":"ping","ref":1}`)
	c.expect("pong")
	bad(99)
	c.send(`{"type":"subscribe","channel":"user:bob"}`) // not allowed, but well-formed
	c.expectError("forbidden")
	bad(100)
	c.expectClose(websocket.StatusPolicyViolation)

	c, _ = n.connect(t, "alice", "")
	c.send(`[5%s]`, strings.Repeat(`,5`, 99))
	for range 100 {
		c.expectError("bad_request")
	}
	c.expectClose(websocket.StatusPolicyViolation)
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { cfg.Limits.Subscriptions = 3 })
	c, _ := n.connect(t, "alice", "channel=room:1")
	for _, step := range []struct{ kind, channel, want string }{
		{"subscribe", "room:2", "subscribed"}, {"subscribe", "room:3", "subscribed"}, {"subscribe", "room:4", "error"},
		{"subscribe", "room:3", "subscribed"}, {"subscribe", "user:alice", "subscribed"}, {"subscribe", "broadcast", "subscribed"},
		{"unsubscribe", "room:1", "unsubscribed"}, {"subscribe", "room:4", "subscribed"}, {"subscribe", "room:1", "error"},
	} {
		f := c.reply(`{"type":%q,"ref":1,"channel":%q}`, step.kind, step.channel)
		expectHas(t, f, frame{"type": step.want, "ref": 1.0})
		if step.want == "error" {
			expectHas(t, f, frame{"code": "limit_exceeded"})
		}
	}
	// In connect what is forbidden takes nobody's place.
	d := n.dial(t, query("access_token", token("bob", claims{"subscribe": []string{"room:*"}}),
		"channel", "a:1", "channel", "b:1", "channel", "room:1", "channel", "room:2", "channel", "room:3", "channel", "room:4", "channel", "broadcast"))
	hello := d.expect("connected")
	counts := map[string]int{}
	for _, name := range hello.names() {
		counts[hello.channel(name).str("error")]++
	}
	if counts["forbidden"] != 2 || counts["limit_exceeded"] != 1 || counts[""] != 5 {
		t.Errorf("got %v", hello)
	}
	for _, own := range []string{"user:bob", "broadcast"} {
		expectHas(t, hello.channel(own), frame{"error": nil})
	}
}

func TestConnectionsPerUser(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, connect func() redis.UniversalClient) {
		limits := func(cfg *gateway.Config) {
			cfg.Limits.Clients = map[string]gateway.ClientLimits{
				"web": {Connections: 3, Timeout: time.Minute}, "mobile": {Connections: 1, Timeout: time.Minute}, "bot": {Timeout: time.Minute},
			}
		}
		a, b := startNode(t, "a", connect(), limits), startNode(t, "b", connect(), limits)
		ok := func(n *node, user, kind string) *client {
			t.Helper()
			c := n.dial(t, query("access_token", token(user, claims{"client": kind}), "connect", "1"))
			c.expect("connected")
			return c
		}
		refused := func(n *node, user, kind string) {
			t.Helper()
			c := n.dial(t, "")
			c.send(`{"type":"connect","ref":7,"token":%q}`, token(user, claims{"client": kind}))
			expectHas(t, c.expectError("limit_exceeded"), frame{"ref": 7.0})
			c.expectClose(4029)
			c = n.dial(t, query("access_token", token(user, claims{"client": kind}), "connect", "1"))
			expectHas(t, c.expectError("limit_exceeded"), frame{"ref": nil})
			c.expectClose(4029)
		}
		first := ok(a, "alice", "web")
		ok(b, "alice", "web")
		_, hello := a.connect(t, "alice", "")
		refused(a, "alice", "web")
		refused(b, "alice", "web")
		ok(b, "alice", "mobile") // counted by itself
		refused(a, "alice", "mobile")
		ok(b, "bob", "web")
		for range 5 {
			ok(a, "alice", "bot")
		}
		// Moving a session needs no room.
		moved := b.dial(t, query("access_token", token("alice"), "session", hello.str("session")))
		expectHas(t, moved.expect("connected"), frame{"resumed": true})
		refused(a, "alice", "web")
		// Who leaves makes room, in whatever way.
		first.cut()
		freed := func() *client {
			t.Helper()
			var got *client
			await(t, func() error {
				c := b.dial(t, query("access_token", token("alice"), "connect", "1"))
				if f := c.next(); f.str("type") != "connected" {
					return fmt.Errorf("got %v", f)
				}
				got = c
				return nil
			})
			return got
		}
		freed().conn.Close(1000, "")
		freed()
		refused(a, "alice", "web")
	})
}

func TestSlowClientCostsItsOwnConnectionOnly(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient, func(cfg *gateway.Config) { cfg.Limits.Outbox = 128 << 10 })
	fast, _ := n.connect(t, "fast", "channel=open:1")
	slow := n.rawDial(t, "slow", "channel", "open:1") // reads nothing
	data := strings.Repeat("x", 60000)
	for i := 0; !n.counted(t, `gateway_disconnects_total{cause="slow"} 1`); i++ {
		if i > 100 {
			t.Fatal("who reads nothing is never too slow")
		}
		for range 10 {
			fast.send(`{"type":"publish","channel":"open:1","data":%q}`, data)
			fast.expect("message")
		}
	}
	slow.expectClose(4008)
	fast.quiet()
}

// counted reports whether the metrics have a line.
func (n *node) counted(t *testing.T, line string) bool {
	t.Helper()
	_, _, body := httpDo(t, "GET", n.api+"/metrics", "")
	return slices.Contains(strings.Split(string(body), "\n"), line)
}

func TestSilentPeersAreDropped(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) {
		cfg.Limits.Clients["web"] = gateway.ClientLimits{Connections: 10, Timeout: 2 * time.Second}
	})
	live, hello := n.connect(t, "alice", "")
	expectHas(t, hello, frame{"ping": 1.0})
	frozen := n.rawDial(t, "bob") // answers no ping
	start := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ctx := live.conn.CloseRead(t.Context()) // answers pings
		<-ctx.Done()
	}()
	pings := 0
	for {
		first, _, err := frozen.read()
		if err != nil {
			t.Fatalf("no close frame: %v", err)
		}
		if first == fin|opPing {
			pings++
		}
		if first == fin|opClose {
			break
		}
	}
	if took := time.Since(start); pings == 0 || took < 1500*time.Millisecond || took > 6*time.Second {
		t.Errorf("dropped after %v and %d pings", took, pings)
	}
	await(t, func() error { return n.offline(t, "bob") })
	select {
	case <-ended:
		t.Error("who answers pings was dropped too")
	default:
	}
	if n.user(t, "alice")["online"] != true {
		t.Error("alice is gone")
	}
}
