package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"wssgateway/gateway/wire"
)

// publish publishes one message to a channel through the server API and returns
// its flight.
func (b *bench) publish(ctx context.Context, channel string, receivers int) (*flight, error) {
	f := b.fly(receivers)
	return f, b.send(ctx, f, channel)
}

// send publishes a message, and may be called again if it fails.
func (b *bench) send(ctx context.Context, f *flight, channel string) error {
	body := make([]byte, 0, 128+len(channel)+b.size)
	body = append(body, `{"channel":`...)
	body = wire.AppendString(body, channel)
	if b.keyed {
		body = fmt.Appendf(body, `,"key":"%s-%d"`, b.key, f.n)
	}
	body = append(body, `,"data":`...)
	body = note{f.n, b.now()}.appendData(body, b.size)
	body = append(body, '}')
	if err := b.post(ctx, b.apis[rand.N(len(b.apis))]+"/v1/publish", body); err != nil {
		return fmt.Errorf("publish to %s: %w", channel, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.published[channel] = append(b.published[channel], f.n)
	return nil
}

func (b *bench) post(ctx context.Context, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+b.apiKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !json.Valid(answer) {
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return nil
}

// target chooses where a message goes, and says how many get it.
type target func(n int) (channel string, receivers int)

// load publishes for a while: --in-flight messages at a time, or --rate a second.
// What is still under way at its end has arrived when it returns.
func (b *bench) load(ctx context.Context, d time.Duration, to target) error {
	if d == 0 {
		return nil
	}
	if b.rate > 0 {
		return b.steady(ctx, d, to)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	deadline := time.Now().Add(d)
	var wg sync.WaitGroup
	for worker := range b.inFlight {
		wg.Go(func() {
			for n := worker; time.Now().Before(deadline) && ctx.Err() == nil; n += b.inFlight {
				if err := b.deliver(ctx, n, to); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// deliver publishes a message and waits until it has arrived everywhere.
func (b *bench) deliver(ctx context.Context, n int, to target) error {
	channel, receivers := to(n)
	f, err := b.publish(ctx, channel, receivers)
	if err != nil {
		return err
	}
	return f.await(ctx)
}

// steady publishes at --rate, whatever has become of the messages before.
func (b *bench) steady(ctx context.Context, d time.Duration, to target) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tick := time.NewTicker(time.Second / time.Duration(b.rate))
	defer tick.Stop()
	var wg sync.WaitGroup
	begin := time.Now()
	for n := 0; time.Since(begin) < d && ctx.Err() == nil; {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		// A ticker drops ticks when it is late; the messages are due all the same.
		for due := int(time.Since(begin).Seconds() * float64(b.rate)); n < due && ctx.Err() == nil; n++ {
			number := n
			wg.Go(func() {
				if err := b.deliver(ctx, number, to); err != nil {
					cancel(err)
				}
			})
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}
