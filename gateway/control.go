package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
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
		<-ctx.Done()
		sub.Close()
	}
}

// Deliver implements broker.Sink.
func (ctl *control) Deliver(m broker.Message) {
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
