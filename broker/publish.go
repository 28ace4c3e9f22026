package broker

import (
	"cmp"
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
	// leastMemory is the least that any channel's last id is remembered.
	leastMemory = time.Hour
)

// Retention says how much of a channel is kept. Size 0 means nothing.
type Retention struct {
	Size int           // messages kept at least; at most a tenth more, and never more than 100
	TTL  time.Duration // counted from the last message
	// Memory is how much longer the last id is remembered: at least an hour, as
	// what Redis has forgotten sooner counts as lost; 0 is seven days.
	Memory time.Duration
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

	// Durable has Publish wait for a replica: it fails with ErrNotReplicated if
	// none has the message in two seconds. It needs a retention.
	Durable bool
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
	keys := b.layout.stored(p.Channel)
	if p.Key != "" {
		keys = append(keys, b.layout.key(p.Channel, p.Scope, p.Key))
	}
	args := append(make([]any, 0, 8), p.Payload, keyTTL.Milliseconds())
	batch := b.lane(p.Channel).batch
	if p.Durable {
		batch = b.lane(p.Channel).durable
	}
	reply, err := batch.eval(ctx, publishScript, keys, b.storing(args, p.Channel, p.Retention)...)
	if err != nil {
		return ID{}, err
	}
	id, err := parseIDReply(reply)
	if err == nil {
		b.lane(p.Channel).floor.raise(id, b.clock.redis(time.Now()))
	}
	return id, err
}

// storing appends the arguments by which a script stores a message.
func (b *Broker) storing(args []any, channel string, r Retention) []any {
	memory := r.TTL + cmp.Or(r.Memory, metaTTL)
	l := b.lane(channel)
	epoch, base := l.life.known()
	return append(args, r.Size, min(r.Size/10, 100), r.TTL.Milliseconds(), memory.Milliseconds(),
		b.publishCommand(), epoch, base.String(), l.floor.get().String())
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
