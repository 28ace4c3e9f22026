package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

// callResult says what became of a call.
type callResult string

const (
	callReplied     callResult = "reply"
	callOneWay      callResult = "one_way"
	callTimeout     callResult = "timeout"
	callFull        callResult = "full"    // too many wait for backends
	callRefused     callResult = "refused" // not allowed, no such stream, or too many of this client's
	callUnavailable callResult = "unavailable"
	callIgnored     callResult = "ignored" // a reply that nobody waits for
)

const (
	// callsInFlight is how many calls of a connection may wait for a reply.
	callsInFlight = 100
	// replyBound is the largest reply: what an outbox takes besides other things.
	replyBound = 512 << 10
)

// calls are the calls of this node's clients that wait for a reply. It is the
// sink of the channel on which backends answer.
type calls struct {
	gw *Gateway

	mu      sync.Mutex // guards what follows
	open    bool       // replies can come
	waiting map[string]*waitingCall
}

// waitingCall is a call without a reply yet.
type waitingCall struct {
	conn  *conn
	ref   wire.Ref // the client's own
	timer *time.Timer
}

func newCalls(g *Gateway) *calls { return &calls{gw: g, waiting: make(map[string]*waitingCall)} }

// channel is where backends answer. No client can name it: it begins with a star.
func (cs *calls) channel() string { return "*reply:" + string(cs.gw.sessions.Node()) }

// run takes in replies until ctx is done.
func (cs *calls) run(ctx context.Context) {
	for ctx.Err() == nil {
		sub, err := cs.gw.broker.Subscribe(ctx, cs.channel(), false, cs)
		if err != nil {
			continue // only with ctx
		}
		cs.mu.Lock()
		cs.open = true
		cs.mu.Unlock()
		<-ctx.Done()
		sub.Close()
	}
}

// call hands a request of the client to backends. The reply comes when it comes;
// what the client asks next does not wait for it.
func (c *conn) call(ctx context.Context, r wire.Request) error {
	stream, _, _ := strings.Cut(r.Event, ".")
	if !validStream(stream) {
		return mistake(wire.BadRequest, "event: its part before the first dot must have 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if !c.grant.Load().mayCall(&c.gw.cfg, r.Event) {
		c.gw.metrics.calls[callRefused].Inc()
		return mistake(wire.Forbidden, "you may not call this")
	}
	fields := []string{"user", c.session.User, "session", c.session.ID, "event", r.Event}
	switch {
	case r.Binary:
		fields = append(fields, "data_base64", base64.StdEncoding.EncodeToString(r.Data))
	case r.Data != nil:
		fields = append(fields, "data", string(r.Data))
	}
	cs := c.gw.calls
	ref := ""
	if r.Ref != "" {
		var err error
		if ref, err = cs.wait(c, r.Ref); err != nil {
			return err
		}
		fields = append(fields, "reply_to", c.gw.broker.LiveName(cs.channel()), "ref", ref)
	}
	limits := c.gw.cfg.Calls
	err := c.gw.broker.Call(ctx, broker.Call{
		Stream: stream, Fields: fields, Begin: slices.Contains(limits.Streams, stream),
		MaxLen: limits.MaxLen, MaxBytes: int64(limits.MaxBytes),
	})
	if err == nil {
		if ref == "" {
			c.gw.metrics.calls[callOneWay].Inc()
		}
		return nil
	}
	if ref != "" && cs.take(ref) == nil {
		return nil // it was answered all the same, or too late
	}
	return c.callFailed(err)
}

func (c *conn) callFailed(err error) error {
	switch {
	case errors.Is(err, broker.ErrCallsFull):
		c.gw.metrics.calls[callFull].Inc()
		return mistake(wire.Unavailable, "too many calls wait for a backend")
	case errors.Is(err, broker.ErrNoStream):
		c.gw.metrics.calls[callRefused].Inc()
		return mistake(wire.NotFound, "no such call stream")
	}
	c.gw.metrics.calls[callUnavailable].Inc()
	c.gw.log.Debug("not called", "error", err)
	return mistake(wire.Unavailable, "not known whether it was called")
}

// validStream reports whether calls can have a stream of this name.
func validStream(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	})
}

// wait notes a call that will be answered, and returns its name: nobody can guess
// it.
func (cs *calls) wait(c *conn, ref wire.Ref) (string, error) {
	name := rand.Text()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch {
	case !cs.open:
		cs.gw.metrics.calls[callUnavailable].Inc()
		return "", mistake(wire.Unavailable, "replies are temporarily unavailable; try again")
	case c.calling >= callsInFlight:
		cs.gw.metrics.calls[callRefused].Inc()
		return "", mistake(wire.LimitExceeded, "too many calls wait for a reply")
	}
	c.calling++
	cs.waiting[name] = &waitingCall{c, ref, time.AfterFunc(cs.gw.cfg.Calls.Timeout, func() { cs.expire(name) })}
	return name, nil
}

// take ends the wait for a reply. It returns nil if that is over.
func (cs *calls) take(name string) *waitingCall {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	w := cs.waiting[name]
	if w == nil {
		return nil
	}
	w.timer.Stop()
	w.conn.calling--
	delete(cs.waiting, name)
	return w
}

func (cs *calls) expire(name string) {
	if w := cs.take(name); w != nil {
		cs.gw.metrics.calls[callTimeout].Inc()
		w.conn.sendError(&wire.Error{Ref: w.ref, Code: wire.Timeout, Message: "no backend has answered in time"}, 0)
	}
}

// Deliver implements broker.Sink: somebody has answered. The first answer counts.
func (cs *calls) Deliver(m broker.Message) {
	var reply struct {
		Ref  string          `json:"ref"`
		Data json.RawMessage `json:"data"`
	}
	var w *waitingCall
	if err := json.Unmarshal([]byte(m.Payload), &reply); err == nil {
		w = cs.take(reply.Ref)
	}
	if w == nil {
		cs.gw.metrics.calls[callIgnored].Inc()
		return
	}
	cs.gw.metrics.calls[callReplied].Inc()
	if len(reply.Data) > replyBound {
		w.conn.sendError(&wire.Error{Ref: w.ref, Code: wire.TooLarge, Message: "the reply is too large"}, 0)
		return
	}
	if reply.Data == nil {
		reply.Data = json.RawMessage("null")
	}
	w.conn.send(wire.NewObject("reply", w.ref).Raw("data", compact(reply.Data)))
}

// compact returns JSON on one line, as frames have it.
func compact(data json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return "null" // it has been parsed
	}
	return string(bytes.ToValidUTF8(b.Bytes(), []byte("\uFFFD")))
}

// Reset implements broker.Sink. A reply that was lost is a timeout.
func (cs *calls) Reset(broker.ID) {}
