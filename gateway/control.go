package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"wssgateway/broker"
	"wssgateway/session"
)

// control is how nodes tell each other what to do with a connection: each life
// of a node has a channel of its own, with the guarantees of any channel. No
// client can name it: it begins with a star.
type control struct {
	broker   *broker.Broker
	sessions *session.Registry
	log      *slog.Logger
	// rebalance has a share of this node's connections asked to move. It must
	// not block.
	rebalance func(share float64)

	mu    sync.Mutex
	first broker.ID // of the orders that were delivered; guarded by mu
}

// controlRetention is for orders that a link which was away still has to get.
var controlRetention = broker.Retention{Size: 1000, TTL: time.Minute, Memory: time.Hour}

func controlChannel(node session.NodeID) string { return "*node:" + string(node) }

// order is what one node tells another.
type order struct {
	Op         string  `json:"op"`
	Session    string  `json:"session,omitempty"`
	Generation uint64  `json:"generation,omitempty"`
	Share      float64 `json:"share,omitempty"`
}

// The orders that there are.
const (
	opEvict      = "evict"      // the session has moved: close its connection
	opDisconnect = "disconnect" // the backend has ended the session: close its connection
	opRebalance  = "rebalance"  // ask a share of the clients to move
)

// tell gives an order to the node that holds a session. Should it get lost, that
// node finds out when it verifies what it holds (session.Registry).
func (ctl *control) tell(ctx context.Context, op string, o session.Owner) error {
	return ctl.give(ctx, o.Node, order{Op: op, Session: o.Session, Generation: o.Generation})
}

// give gives an order to a node.
func (ctl *control) give(ctx context.Context, to session.NodeID, o order) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = ctl.broker.Publish(ctx, broker.Publication{
		Channel: controlChannel(to), Payload: body, Retention: controlRetention,
	})
	return err
}

// run obeys the orders for this node until ctx is done.
func (ctl *control) run(ctx context.Context) {
	for ctx.Err() == nil {
		sub, err := ctl.broker.Subscribe(ctx, controlChannel(ctl.sessions.Node()), true, ctl)
		if err != nil {
			continue // only with ctx
		}
		ctl.catchUp(ctx, sub.Last())
		<-ctx.Done()
		sub.Close()
	}
}

const (
	controlPage  = 100             // orders read at a time
	controlTries = 20              // to read what was stored before the subscription stood
	controlPause = time.Second / 2 // between two of them
)

// catchUp obeys the orders that were stored before the subscription stood: the
// channel is this life's of the node alone, so all of them are for it. Last is the
// last order that there was, or that was delivered.
func (ctl *control) catchUp(ctx context.Context, last broker.ID) {
	ctl.mu.Lock()
	end := ctl.first // what was delivered was obeyed
	ctl.mu.Unlock()
	at := broker.ID{}
	for try := 1; at.Compare(last) < 0; {
		page, err := ctl.broker.Read(ctx, controlChannel(ctl.sessions.Node()), at, controlPage)
		switch {
		case err == nil && len(page) == 0:
			return
		case err != nil && try == controlTries:
			ctl.log.Warn("reading control messages from before the node listened failed", "error", err)
			ctl.sessions.Verify()
			return
		case err != nil:
			if try++; !sleep(ctx, controlPause) {
				return
			}
		}
		for _, m := range page {
			if m.ID.Compare(last) > 0 || !end.IsZero() && m.ID.Compare(end) >= 0 {
				return
			}
			ctl.obey(m)
			at = m.ID
		}
	}
}

// Deliver implements broker.Sink.
func (ctl *control) Deliver(m broker.Message) {
	ctl.mu.Lock()
	if ctl.first.IsZero() {
		ctl.first = m.ID
	}
	ctl.mu.Unlock()
	ctl.obey(m)
}

func (ctl *control) obey(m broker.Message) {
	var o order
	if err := json.Unmarshal([]byte(m.Payload), &o); err != nil || m.Foreign {
		ctl.log.Warn("order not understood", "error", err)
		return
	}
	switch o.Op { // a later version may know others
	case opEvict:
		ctl.sessions.Evict(o.Session, o.Generation)
	case opDisconnect:
		if c, ok := ctl.sessions.Held(o.Session, o.Generation).(*conn); ok {
			c.fail(causeDisconnected)
		}
	case opRebalance:
		ctl.rebalance(o.Share)
	}
}

// Reset implements broker.Sink. What was ordered is found out by the registry.
func (ctl *control) Reset(broker.ID) { ctl.sessions.Verify() }
