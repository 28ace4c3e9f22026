package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"wssgateway/examples/lab"
)

// publisher is a backend that publishes one message after the other, each to
// the other gateway than the one before. What is not acknowledged is published
// again with the same key, to the other one.
type publisher struct {
	lab  *lab.Lab
	end  context.CancelFunc
	done chan struct{}

	mu   sync.Mutex // guards sent
	sent sent
}

// sent is what was acknowledged, by id, in order.
type sent struct {
	room, inbox []string
	repeated    int
}

func newPublisher(w *lab.Lab) *publisher { return &publisher{lab: w, done: make(chan struct{})} }

func (p *publisher) start(ctx context.Context) {
	ctx, p.end = context.WithCancel(ctx)
	go func() {
		defer close(p.done)
		for i := 0; ctx.Err() == nil; i++ {
			if id, ok := p.publish(ctx, i, "channel", room); ok {
				p.took(&p.sent.room, id)
			}
			if id, ok := p.publish(ctx, i, "to", "alice"); ok {
				p.took(&p.sent.inbox, id)
			}
		}
	}()
}

func (p *publisher) took(list *[]string, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*list = append(*list, id)
}

// stop ends the publishing and returns what was acknowledged.
func (p *publisher) stop() sent {
	p.end()
	<-p.done
	return p.sent
}

// await waits until n messages of the room were acknowledged.
func (p *publisher) await(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		reached := len(p.sent.room) >= n
		p.mu.Unlock()
		if reached {
			return nil
		}
		if err := lab.Pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// publish publishes message i until somebody acknowledges it.
func (p *publisher) publish(ctx context.Context, i int, field, target string) (id string, ok bool) {
	body, err := json.Marshal(map[string]any{
		field: target, "event": "story", "data": i, "key": fmt.Sprintf("%s-%d", target, i),
	})
	if err != nil {
		return "", false
	}
	for try := i; ; try++ {
		g := p.lab.Nodes[try%len(p.lab.Nodes)]
		id, err := g.Publish(context.WithoutCancel(ctx), body)
		if err == nil {
			return id, true
		}
		if ctx.Err() != nil {
			return "", false
		}
		p.mu.Lock()
		p.sent.repeated++
		p.mu.Unlock()
	}
}
