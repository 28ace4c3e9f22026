package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"wssgateway/examples/lab"
)

// publisher is backends that publish steadily to random channels through random
// nodes. What is not acknowledged they publish again, with the same key.
type publisher struct {
	world *world
	rate  int // messages per second

	next  atomic.Int64
	again atomic.Int64

	mu    sync.Mutex // guards what follows
	acked map[string][]int
}

// publishers is how many may wait for an answer at a time: more than enough for
// the rate, and for the while that Redis is away.
const publishers = 64

func newPublisher(w *world) *publisher {
	return &publisher{world: w, rate: w.scenario.rate, acked: make(map[string][]int)}
}

// run publishes until ctx is done, and waits until all is acknowledged.
func (p *publisher) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, publishers)
	tick := time.NewTicker(time.Second / time.Duration(p.rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case room <- struct{}{}:
		default:
			continue // all of them wait
		}
		wg.Go(func() {
			p.publish(context.WithoutCancel(ctx), int(p.next.Add(1)))
			<-room
		})
	}
}

// publish publishes a message until somebody acknowledges it.
func (p *publisher) publish(ctx context.Context, n int) {
	channel := p.world.randomChannel()
	for {
		body, err := json.Marshal(map[string]any{
			"channel": channel, "event": "note", "key": fmt.Sprint("note-", n), "data": lab.Note{N: n, At: time.Now().UnixMicro()},
		})
		if err != nil {
			panic(err) // plain fields
		}
		node := p.world.lab.Nodes[rand.N(len(p.world.lab.Nodes))]
		if _, err := node.Publish(ctx, body); err == nil {
			break
		}
		p.again.Add(1)
		_ = lab.Pause(ctx, 20*time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked[channel] = append(p.acked[channel], n)
}
