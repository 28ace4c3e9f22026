package broker

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Call is an entry for backends, on the stream <prefix>calls:<Stream>. They read
// it with consumer groups.
type Call struct {
	Stream   string
	Fields   []string // names and values in turn
	Begin    bool     // begin the stream if no backend has
	MaxLen   int      // entries that may wait to be acknowledged
	MaxBytes int64    // what they may take in Redis
}

var (
	// ErrCallsFull is returned by Call if too many entries wait for backends.
	ErrCallsFull = errors.New("broker: the stream of calls is full")
	// ErrNoStream is returned by Call for a stream that does not exist.
	ErrNoStream = errors.New("broker: no such stream of calls")
)

// callTrimEvery is how often a stream of calls is rid of what every group has
// acknowledged, as long as entries are added: looking costs as much as adding.
const callTrimEvery = time.Second

// Call adds an entry. After another error than those above it is not known
// whether it did.
func (b *Broker) Call(ctx context.Context, c Call) error {
	begin := 0
	if c.Begin {
		begin = 1
	}
	args := append(make([]any, 0, 4+len(c.Fields)), c.MaxLen, c.MaxBytes, callTrimEvery.Milliseconds(), begin)
	for _, f := range c.Fields {
		args = append(args, f)
	}
	reply, err := b.batch.eval(ctx, callScript, b.layout.calls(c.Stream), args...)
	if err != nil {
		return fmt.Errorf("broker: call: %w", err)
	}
	switch reply {
	case int64(1):
		return nil
	case int64(-1):
		return ErrNoStream
	}
	return ErrCallsFull
}

// LiveName returns the pub/sub channel of a channel: what is published there by
// hand is delivered as a foreign message. In a Cluster it takes SPUBLISH.
func (b *Broker) LiveName(channel string) string { return b.layout.live(channel) }
