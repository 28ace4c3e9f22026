package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// probeEvery is how often a node publishes to itself.
	probeEvery = time.Second
	// silence is how long a link may deliver nothing before it counts as dead:
	// three probes. The client library's own health check would not notice.
	silence = 3 * time.Second
	// openTimeout is how long a new link may take to be confirmed: less, as in a
	// Cluster another server may have taken over meanwhile.
	openTimeout = silence / 2
	// subscribeBatch is how many channels go into one SUBSCRIBE.
	subscribeBatch = 512
)

// Why a link is given up though its connection may still stand.
var (
	errSilent  = errors.New("the probe has not come back")
	errRevoked = errors.New("unsubscribed by Redis")
)

// reasonOf says why a link was given up.
func reasonOf(err error) reopenReason {
	switch {
	case errors.Is(err, errRevoked):
		return reopenRevoked
	case errors.Is(err, errSilent), errors.Is(err, os.ErrDeadlineExceeded):
		return reopenSilent
	}
	return reopenLost
}

// serveLink opens a link and serves it until it fails or ctx is done; it reports
// whether the link ever stood. The library would reconnect by itself, silently;
// here every failure ends the link and the next one is compared with the streams.
func (l *lane) serveLink(ctx context.Context) (opened bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ps := l.rdb.Subscribe(ctx) // connects with the first channel
	closeOnce := sync.OnceFunc(func() { _ = ps.Close() })
	defer closeOnce()
	defer context.AfterFunc(ctx, closeOnce)()

	if err := l.open(ctx, ps); err != nil {
		return false, err
	}
	l.opened()
	l.b.metrics.links.Inc()
	defer l.b.metrics.links.Dec()

	var wg sync.WaitGroup
	wg.Go(func() { cancel(l.readLink(ctx, ps)) })
	wg.Go(func() { cancel(l.writeLink(ctx, ps)) })
	wg.Go(func() { cancel(l.probeLink(ctx)) })
	wg.Wait()
	return true, context.Cause(ctx)
}

// open subscribes to the node's own probe and waits for the confirmation.
func (l *lane) open(ctx context.Context, ps *redis.PubSub) error {
	if err := l.send(ctx, ps, "subscribe", []string{l.probe}); err != nil {
		return err
	}
	if _, err := ps.ReceiveTimeout(ctx, openTimeout); err != nil {
		return fmt.Errorf("confirm probe: %w", err)
	}
	l.restart()
	return nil
}

// readLink hands on what comes. It never waits for anybody but the link.
func (l *lane) readLink(ctx context.Context, ps *redis.PubSub) error {
	for ctx.Err() == nil {
		v, err := ps.ReceiveTimeout(ctx, silence)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		switch v := v.(type) {
		case *redis.Message:
			l.receive(v.Channel, v.Payload)
		case *redis.Subscription:
			if err := l.subscription(v); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

func (l *lane) subscription(v *redis.Subscription) error {
	channel, ok := l.b.layout.channel(l.number, v.Channel)
	if !ok {
		return nil // the probe
	}
	switch v.Kind {
	case "subscribe", "ssubscribe":
		l.confirmed(channel)
	case "unsubscribe", "sunsubscribe":
		if !l.unsubscribed(channel) {
			return fmt.Errorf("%q: %w", v.Channel, errRevoked)
		}
	}
	return nil
}

// writeLink sends what changes, many channels at a time.
func (l *lane) writeLink(ctx context.Context, ps *redis.PubSub) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.wake:
		}
		subscribe, unsubscribe := l.takeChanges(subscribeBatch)
		if err := l.send(ctx, ps, "unsubscribe", unsubscribe); err != nil {
			return err
		}
		if err := l.send(ctx, ps, "subscribe", subscribe); err != nil {
			return err
		}
	}
}

// send writes one command. Without channels it does nothing: to Redis, an
// UNSUBSCRIBE of nothing means everything.
func (l *lane) send(ctx context.Context, ps *redis.PubSub, command string, channels []string) error {
	if len(channels) == 0 {
		return nil
	}
	f := map[string]func(context.Context, ...string) error{
		"subscribe": ps.Subscribe, "unsubscribe": ps.Unsubscribe,
	}
	if l.b.layout.sharded {
		f = map[string]func(context.Context, ...string) error{
			"subscribe": ps.SSubscribe, "unsubscribe": ps.SUnsubscribe,
		}
	}
	if err := f[command](ctx, channels...); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// probeLink publishes to the node itself. A link can be alive, answer PING, and
// yet hear nothing of what is published: only a message that comes back proves
// that it delivers.
func (l *lane) probeLink(ctx context.Context) error {
	opened := time.Now()
	last := opened
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		l.sendProbe(ctx)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		// A node that was paused has not read what came meanwhile.
		if late := time.Since(last) - probeEvery; late > probeEvery {
			l.hearing.stoodStill(late)
		}
		last = time.Now()
		if time.Since(opened) > silence && l.hearing.silence() > silence {
			return fmt.Errorf("%w for %s", errSilent, silence)
		}
	}
}

// sendProbe publishes past the queue, which may be long, so that a node which has
// much to publish does not take its link for deaf. An error shows as silence.
func (l *lane) sendProbe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeEvery)
	defer cancel()
	cmd := redis.NewIntCmd(ctx, l.b.publishCommand(), l.probe, "")
	_ = l.rdb.Process(ctx, once{cmd})
}
