package client

import (
	"slices"
	"time"

	"wssgateway/gateway/wire"
)

// paceWindow is how many requests may be unanswered at once. The gateway closes after
// 100 refusals in a row (4029), and can refuse no more than are on their way before the
// client hears of the first one.
const paceWindow = 64

const (
	// paceGapMost bounds the time between two requests: the gateway's rate is a whole
	// number a second.
	paceGapMost = time.Second
	// paceMargin is added to what the gateway says, which is in whole milliseconds.
	paceMargin = time.Millisecond
	// paceSlack is how much of a timer's lateness is made up for.
	paceSlack = 5 * time.Millisecond
	// paceEasing is the share of the gap that an answer takes off.
	paceEasing = 64
)

// pace sends requests no faster than the gateway lets through on the connection in use.
// Until it has refused one it is asked as fast as it answers. From then on there is a
// gap between two requests, which a refusal makes longer and every other answer a
// little shorter. Client.mu guards it.
type pace struct {
	queue    []*request       // to be sent, by ref
	onTheWay map[int64]uint64 // by ref, of those without an answer: which request of the connection it is
	sent     uint64           // requests on this connection
	judged   uint64           // how many had been sent at the last refusal that counted
	gap      time.Duration    // 0: the gateway has refused none
	next     time.Time        // no request before that
	timer    *time.Timer      // nil, or calls sendPaced
}

// restart begins with a new connection, of which nothing is known.
func (p *pace) restart(all []*request) {
	if p.timer != nil {
		p.timer.Stop()
	}
	*p = pace{queue: all, onTheWay: make(map[int64]uint64)}
}

// add queues a request, before those that are younger.
func (p *pace) add(r *request) {
	i, _ := find(p.queue, r.ref)
	p.queue = slices.Insert(p.queue, i, r)
}

// remove has a request not sent any more.
func (p *pace) remove(ref int64) {
	if i, ok := find(p.queue, ref); ok {
		p.queue = slices.Delete(p.queue, i, i+1)
	}
}

// take returns the next request if it may be sent now. If it may be only later, wait
// says when.
func (p *pace) take(now time.Time) (r *request, wait time.Duration) {
	if len(p.queue) == 0 || len(p.onTheWay) >= paceWindow {
		return nil, 0
	}
	if wait = p.next.Sub(now); wait > 0 {
		return nil, wait
	}
	if earliest := now.Add(-paceSlack); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(p.gap)
	r, p.queue[0] = p.queue[0], nil
	p.queue = p.queue[1:]
	p.sent++
	p.onTheWay[r.ref] = p.sent
	return r, 0
}

// answered takes in an answer to a request, perhaps to one that nobody waits for any
// more.
func (p *pace) answered(f *frame, now time.Time) {
	which, ok := p.onTheWay[f.Ref]
	if !ok {
		return
	}
	delete(p.onTheWay, f.Ref)
	if !f.rateLimited() {
		p.gap -= p.gap / paceEasing
		return
	}
	after := f.err().RetryAfter + paceMargin
	if at := now.Add(after); at.After(p.next) {
		p.next = at
	}
	if which > p.judged { // else it was sent before the gap was what it is
		p.gap = min(p.gap+after, paceGapMost)
		p.judged = p.sent
	}
}

// rateLimited reports whether a request was refused for coming too soon, and so was
// not done.
func (f *frame) rateLimited() bool {
	return f.Type == "error" && wire.Code(f.Code) == wire.RateLimited
}

// sendPaced sends what may be sent, and plans to go on with the rest. c.mu is held.
func (c *Client) sendPaced() {
	for c.active != nil {
		r, wait := c.pace.take(time.Now())
		if wait > 0 {
			c.pace.later(wait, c.sendLater)
		}
		if r == nil {
			return
		}
		r.sent = true
		c.active.send(r.kind, r.b)
	}
}

func (c *Client) sendLater() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendPaced()
}

// later has send called after a time.
func (p *pace) later(wait time.Duration, send func()) {
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, send)
		return
	}
	p.timer.Reset(wait)
}

// find returns where in a list that is ordered by ref a request is, or would be.
func find(all []*request, ref int64) (int, bool) {
	return slices.BinarySearchFunc(all, ref, func(r *request, ref int64) int { return int(r.ref - ref) })
}
