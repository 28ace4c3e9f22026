package gateway_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"wssgateway/gateway"
	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// ended returns how many connections ended for a cause.
func (n *node) ended(cause string) float64 {
	families, err := n.metrics.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "gateway_disconnects_total" && m.GetLabel()[0].GetValue() == cause {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestFrozenReader: whoever stops reading costs its own connection only, and is
// told when it reads again.
func TestFrozenReader(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t), deep, func(cfg *gateway.Config) {
		cfg.Limits.FrameSize, cfg.Limits.Outbox = 16<<10, 64<<10
	})
	const channel = "deep:1"
	frozen := n.connectBare(t, "frozen", "channel="+channel)
	var others []*follower // in every shard
	for i := range 8 {
		others = append(others, n.follow(t, fmt.Sprintf("user%d", i), channel))
	}
	// Each step comes after all others have got the one before: none of them
	// waits for the frozen one, whatever is on its way there.
	published := 0
	step := func() {
		var body []string
		for range 5 {
			published++
			body = append(body, fmt.Sprintf(`{"channel":%q,"data":%d}`, channel, published))
		}
		body = append(body, fmt.Sprintf(`{"channel":%q,"data":%q}`, channel, strings.Repeat("x", 15000)))
		if status, answer := n.call(t, "POST", "/v1/publish", "["+strings.Join(body, ",")+"]"); status != http.StatusOK {
			t.Fatalf("%d %v", status, answer)
		}
		awaitFollowers(t, int64(published), others...)
	}
	for n.ended("slow") == 0 {
		step()
	}
	for range 3 {
		step()
	}
	messages := 0
	f := frozen.frame()
	for ; opcode(f) != wire.OpClose; f = frozen.frame() {
		var message frame
		if err := json.Unmarshal(f[bytes.IndexByte(f, '{'):], &message); err != nil {
			t.Fatal(err)
		}
		if n, ok := message["data"].(float64); ok {
			if messages++; int(n) != messages {
				t.Fatalf("message %v came as number %d", n, messages)
			}
		}
	}
	if binary.BigEndian.Uint16(f[2:]) != 4008 {
		t.Errorf("after %d messages: %q", messages, f)
	}
	frozen.write("%s", wiretest.ClientFrame(wire.OpClose, string(f[2:4])))
	if f, err := frozen.tryFrame(); !errors.Is(err, io.EOF) {
		t.Errorf("after the close frame: %q, %v", f, err)
	}
}

// TestSlowReaderMoves: a replay to a client that reads at a crawl, with its pongs
// behind all of it, is neither slowness nor silence.
func TestSlowReaderMoves(t *testing.T) {
	t.Parallel()
	rdb := embedded(t)
	n := startNode(t, "a", rdb, deep, impatient)
	const channel, messages, size = "deep:1", 100, 8000
	body := strings.Repeat(fmt.Sprintf(`,{"channel":%q,"data":%q}`, channel, strings.Repeat("x", size)), messages)[1:]
	if status, answer := n.call(t, "POST", "/v1/publish", "["+body+"]"); status != http.StatusOK {
		t.Fatalf("%d %v", status, answer)
	}
	c := n.narrow(t, "access_token="+token("alice")+"&channel="+channel+"@0")
	j := &journal{channel: channel}
	j.await(c, "connected", "0")
	pace := time.NewTicker(65 * time.Millisecond) // 120 KB/s: three times the timeout for all of it
	defer pace.Stop()
	for range messages {
		<-pace.C
		if f, err := c.read(); err != nil || !j.message(f) {
			t.Fatalf("after %d of %d: %v, %v", len(j.steps)-1, messages, f, err)
		}
	}
	j.check(t, stored(t, rdb, channel))
}

// impatient makes a node ping every second.
func impatient(cfg *gateway.Config) {
	cfg.Limits.Clients["web"] = gateway.ClientLimits{Connections: 50, Timeout: 2 * time.Second}
}

// TestSilentPeers: who answers pings stays, who does not is dropped, whatever
// else it does.
func TestSilentPeers(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t), impatient)
	alive := n.connectBare(t, "alive", "")
	mute, half, torn := n.connectBare(t, "mute", ""), n.connectBare(t, "half", ""), n.connectBare(t, "torn", "")
	half.write("%s", wiretest.ClientFrame(wire.OpText, `{"type":"ping","ref":1}`)[:9])
	torn.write("%s", wiretest.ClientFrame(wire.OpText, `{"type":"ping","ref":1}`)[:3])
	var wg sync.WaitGroup
	for _, c := range []*bareClient{mute, half, torn} {
		wg.Go(func() {
			pings := 0
			for {
				f, err := c.tryFrame()
				switch {
				case err != nil:
					t.Errorf("no close frame: %v", err)
				case opcode(f) == wire.OpPing:
					pings++
					continue
				case opcode(f) != wire.OpClose || binary.BigEndian.Uint16(f[2:]) != 1001 || pings == 0:
					t.Errorf("after %d pings: %q", pings, f)
				}
				break
			}
			if _, err := c.tryFrame(); err == nil { // cut: it does not answer the close frame either
				t.Error("another frame after the close frame")
			}
		})
	}
	gone := make(chan struct{})
	go func() { wg.Wait(); close(gone) }()
	for pings := 0; ; {
		if f, err := alive.tryFrame(); err != nil || opcode(f) != wire.OpPing {
			t.Fatalf("got %q, %v", f, err)
		}
		pings++
		alive.write("%s", wiretest.ClientFrame(wire.OpPong, ""))
		select {
		case <-gone:
			if pings < 4 {
				t.Errorf("%d pings in the time that others need to be dropped", pings)
			}
			return
		default:
		}
	}
}

// TestCloseFrameNotAnswered: the peer has five seconds.
func TestCloseFrameNotAnswered(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t))
	c := n.bare(t, "", string(wiretest.ClientFrame(wire.OpText, `{"type":"connect","token":"bad"}`)))
	c.frame() // the error
	if f := c.frame(); opcode(f) != wire.OpClose || binary.BigEndian.Uint16(f[2:]) != 4001 {
		t.Fatalf("got %q", f)
	}
	start := time.Now()
	c.write("%s", wiretest.ClientFrame(wire.OpText, `{"type":"ping","ref":1}`)) // ignored
	if f, err := c.tryFrame(); err == nil {
		t.Errorf("got %q", f)
	}
	if took := time.Since(start); took < 4*time.Second || took > 10*time.Second {
		t.Errorf("cut after %v", took)
	}
	await(t, func() error {
		if got := n.metric("gateway_connections"); got > 0 {
			return fmt.Errorf("%v connections", got)
		}
		return nil
	})
}

// TestBytesOneByOne sends frames, a fragmented one among them, byte by byte, and
// others all at once with the handshake.
func TestBytesOneByOne(t *testing.T) {
	t.Parallel()
	n := startNode(t, "a", embedded(t))
	connect := wiretest.ClientFrame(wire.OpText, fmt.Sprintf(`{"type":"connect","ref":1,"token":%q}`, token("alice")))
	first, second := wiretest.ClientFrame(wire.OpText, `{"type":"pi`), wiretest.ClientFrame(0, `ng","ref":2}`)
	first[0] &^= 0x80
	ping := wiretest.ClientFrame(wire.OpPing, "between")
	all := bytes.Join([][]byte{connect, first, ping, second}, nil)

	slowly := n.bare(t, "", "")
	for i := range all {
		slowly.write("%s", all[i:i+1])
	}
	atOnce := n.bare(t, "", string(all))
	for name, c := range map[string]*bareClient{"byte by byte": slowly, "with the handshake": atOnce} {
		var got []string
		for range 3 {
			f := c.frame()
			if opcode(f) == wire.OpPong {
				got = append(got, string(f[2:]))
				continue
			}
			var fields frame
			if err := json.Unmarshal(f[bytes.IndexByte(f, '{'):], &fields); err != nil {
				t.Fatal(err)
			}
			got = append(got, fields.str("type"))
		}
		// The pong overtakes what is still being read.
		if s := strings.Join(got, " "); s != "connected between pong" {
			t.Errorf("%s: got %s", name, s)
		}
	}
}

// TestPeersThatPingWithoutEnd keep nobody else from being served, though pings are
// answered where all connections are waited for.
func TestPeersThatPingWithoutEnd(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	pings := bytes.Repeat(wiretest.ClientFrame(wire.OpPing, "x"), 500)
	for i := range 2 * runtime.GOMAXPROCS(0) { // some for every shard
		c := n.connectBare(t, fmt.Sprint("mallory", i), "")
		go func() { _, _ = io.Copy(io.Discard, c) }()
		go func() {
			for {
				if _, err := c.Write(pings); err != nil {
					return // the test is over
				}
			}
		}()
	}
	begin := time.Now()
	for i := range 2 * runtime.GOMAXPROCS(0) {
		c, _ := n.connect(t, fmt.Sprint("alice", i), "")
		for range 20 {
			c.send(`{"type":"ping","ref":1}`)
			c.expect("pong")
		}
	}
	if took := time.Since(begin); took > 20*time.Second { // a second, or most of a minute
		t.Errorf("the others waited for %v", took)
	}
}
