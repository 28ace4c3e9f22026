package broker

import (
	"context"
	"fmt"
	"time"
)

const (
	// keyTTL is how long an idempotency key is remembered.
	keyTTL = 5 * time.Minute
	// metaTTL is how much longer than its history the last id of a channel is
	// remembered: how long a client may stay away from a channel on which
	// nothing happens and still be told that it missed nothing.
	metaTTL = 7 * 24 * time.Hour
)

// Retention says how much of a channel is kept. Size 0 means nothing.
type Retention struct {
	Size int           // messages kept at least; at most a tenth more, and never more than 100
	TTL  time.Duration // counted from the last message
}

// Publication is a message to be published.
type Publication struct {
	Channel   string
	Payload   []byte // must not be changed any more, not even after an error
	Retention Retention

	// Key, if any, makes a repeated publish harmless: within keyTTL the same
	// key on the same channel in the same scope answers the first id.
	Key   string
	Scope string // who counts as the same publisher; no white space
}

// Publish stores a message and hands it to every node that subscribes to its
// channel, in one step. After an error it is not known whether it did. The id
// is zero on a channel without history.
func (b *Broker) Publish(ctx context.Context, p Publication) (ID, error) {
	start := time.Now()
	id, err := b.publish(ctx, p)
	b.metrics.published(time.Since(start), err)
	if err != nil {
		return ID{}, fmt.Errorf("broker: publish: %w", err)
	}
	return id, nil
}

func (b *Broker) publish(ctx context.Context, p Publication) (ID, error) {
	if p.Retention.Size == 0 {
		// Nothing to keep in order with: a plain PUBLISH in our own envelope.
		_, err := b.batch.do(ctx, b.publishCommand(), b.layout.live(p.Channel), b.encodeLive(p.Payload))
		return ID{}, err
	}
	keys := make([]string, 0, 5)
	keys = append(keys, b.layout.stream(p.Channel), b.layout.meta(p.Channel),
		b.layout.epoch(b.layout.laneOf(p.Channel)), b.layout.live(p.Channel))
	if p.Key != "" {
		keys = append(keys, b.layout.key(p.Channel, p.Scope, p.Key))
	}
	r := p.Retention
	reply, err := b.batch.eval(ctx, publishScript, keys,
		p.Payload, r.Size, min(r.Size/10, 100), r.TTL.Milliseconds(), (r.TTL + metaTTL).Milliseconds(),
		keyTTL.Milliseconds(), b.publishCommand(), b.lane(p.Channel).knownEpoch())
	if err != nil {
		return ID{}, err
	}
	return parseIDReply(reply)
}

func (b *Broker) publishCommand() string {
	if b.layout.sharded {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// parseIDReply parses the reply of a script: a pair whose first part is an id.
func parseIDReply(reply any) (ID, error) {
	pair, ok := reply.([]any)
	if !ok || len(pair) != 2 {
		return ID{}, fmt.Errorf("unexpected reply %v", reply)
	}
	s, _ := pair[0].(string)
	return ParseID(s)
}
