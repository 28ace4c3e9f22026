package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"wssgateway/broker/redistest"
)

// answersWithin is what the protocol promises of a frame or a call, and what a
// machine that has much to do may add.
const answersWithin = 5*time.Second + 3*time.Second

// TestArrayHasOneDeadline: an array is answered as a whole in the time of one
// request when Redis does not answer, whatever is in it (finding A10).
func TestArrayHasOneDeadline(t *testing.T) {
	t.Parallel()
	m := redistest.Embedded(t)
	p := redistest.NewProxy(t, m.Addr())
	n := startNode(t, "a", dialRedis(t, p.Addr()))
	c, _ := n.connect(t, "bob", "channel=who:old")
	var requests, elements []string
	for i := range 100 {
		request := []string{
			`{"type":"publish","ref":%d,"channel":"open:%[1]d","data":1}`, `{"type":"subscribe","ref":%d,"channel":"open:%[1]d"}`,
			`{"type":"history","ref":%d,"channel":"open:%[1]d","since":"0"}`, `{"type":"presence","ref":%d,"channel":"who:%[1]d"}`,
			`{"type":"call","ref":%d,"event":"orders%[1]d.create"}`,
		}[i%5]
		requests = append(requests, fmt.Sprintf(request, i))
		elements = append(elements, fmt.Sprintf(`{"channel":"open:%d","data":1}`, i%3))
	}
	p.Blackhole(true)
	defer p.Blackhole(false)
	answered := make(chan any, 1)
	go func() {
		_, answer := n.call(t, "POST", "/v1/publish", "["+strings.Join(elements, ",")+"]")
		answered <- answer
	}()
	start := time.Now()
	c.send("[%s]", strings.Join(requests, ","))
	for i := range requests {
		expectHas(t, c.expectError("unavailable"), frame{"ref": float64(i)})
	}
	if took := time.Since(start); took > answersWithin {
		t.Errorf("the frame was answered after %v", took)
	}
	answers, _ := (<-answered).([]any)
	if took := time.Since(start); took > answersWithin || len(answers) != len(elements) {
		t.Errorf("%d of the call answered after %v", len(answers), took)
	}
	for _, a := range answers {
		expectProblem(t, 503, a, "unavailable")
	}
}

// TestFramesBackToBackHaveOneDeadline: what came while a frame waited for Redis in
// vain does not wait once more, and what comes after that does (finding A10).
func TestFramesBackToBackHaveOneDeadline(t *testing.T) {
	t.Parallel()
	m := redistest.Embedded(t)
	p := redistest.NewProxy(t, m.Addr())
	n := startNode(t, "a", dialRedis(t, p.Addr()))
	c, _ := n.connect(t, "bob", "")
	p.Blackhole(true)
	start := time.Now()
	const frames = 150 // more than are read at a time, and some that need no Redis
	for i := range frames {
		if i%3 == 0 {
			c.send(`[{"type":"publish","ref":%d,"channel":"open:1","data":1},{"type":"ping","ref":"p"}]`, i)
			continue
		}
		c.send(`{"type":"ping","ref":"p"}`)
	}
	for i := range frames {
		if i%3 == 0 {
			expectHas(t, c.expectError("unavailable"), frame{"ref": float64(i)})
		}
		c.expect("pong")
	}
	if took := time.Since(start); took > answersWithin {
		t.Errorf("they were answered after %v", took)
	}
	p.Blackhole(false)
	await(t, func() error {
		if f := c.reply(`{"type":"publish","ref":1,"channel":"open:1","data":1}`); f.str("type") != "published" {
			return fmt.Errorf("got %v", f)
		}
		return nil
	})
}

// TestArrayKeepsItsOrder: after a message that could not be published none of the
// array is tried on its channel, so that who repeats them keeps their order
// (finding A10).
func TestArrayKeepsItsOrder(t *testing.T) {
	t.Parallel()
	m := redistest.Embedded(t)
	n := startNode(t, "a", redistest.EmbeddedClient(t, m))
	c, _ := n.connect(t, "bob", "")
	if err := m.Set("gw:{0}:stream:open:bad", "not a stream"); err != nil {
		t.Fatal(err)
	}
	const untried = "not published: one before it on its channel was not"
	c.send(`[{"type":"publish","ref":0,"channel":"open:bad","data":1},{"type":"publish","ref":1,"channel":"open:good","data":1},` +
		`{"type":"publish","ref":2,"channel":"open:bad","data":2},{"type":"publish","ref":3,"channel":"open:good","data":2}]`)
	first := c.expectError("unavailable")
	c.expect("published")
	second := c.expectError("unavailable")
	c.expect("published")
	if strings.HasPrefix(first.str("message"), untried) || !strings.HasPrefix(second.str("message"), untried) {
		t.Errorf("%v, %v", first, second)
	}
	_, answer := n.call(t, "POST", "/v1/publish", `[{"channel":"open:bad","data":1},{"channel":"open:good","data":3},{"channel":"open:bad","data":2}]`)
	answers, _ := answer.([]any)
	if len(answers) != 3 {
		t.Fatalf("%v", answer)
	}
	expectHas(t, answers[1].(map[string]any), frame{"id": true})
	for i, tried := range map[int]bool{0: true, 2: false} {
		expectProblem(t, 503, answers[i], "unavailable")
		if detail := frame(answers[i].(map[string]any)).str("detail"); strings.HasPrefix(detail, untried) == tried {
			t.Errorf("%d: %s", i, detail)
		}
	}
}

// TestWhoHasGonePublishesNothingMore: a caller that gives up does not know what was
// published, and must not find more of it later (finding A10).
func TestWhoHasGonePublishesNothingMore(t *testing.T) {
	t.Parallel()
	m := redistest.Embedded(t)
	p := redistest.NewProxy(t, m.Addr())
	n := startNode(t, "a", dialRedis(t, p.Addr()), deep)
	rdb := redistest.EmbeddedClient(t, m)
	n.publish(t, `{"channel":"deep:1","data":0}`) // Redis has the script
	p.SetLatency(20 * time.Millisecond)
	ctx, leave := context.WithCancel(t.Context())
	body := "[" + strings.Repeat(`,{"channel":"deep:1","data":1}`, 100)[1:] + "]"
	req, err := http.NewRequestWithContext(ctx, "POST", n.api+"/v1/publish", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testAPIKey)
	gone := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		gone <- err
	}()
	await(t, func() error {
		if got := len(stored(t, rdb, "deep:1")); got < 2 {
			return fmt.Errorf("%d messages", got)
		}
		return nil
	})
	leave()
	if err := <-gone; err == nil {
		t.Fatal("the call was over already")
	}
	await(t, func() error { // nobody waits for the answer, but the handler must be over
		if got := n.metric("http_requests_total"); got < 2 {
			return fmt.Errorf("%v calls are over", got)
		}
		return nil
	})
	if got := len(stored(t, rdb, "deep:1")); got > 50 {
		t.Errorf("%d of 100 messages were published for a caller that had gone after two", got)
	}
}
