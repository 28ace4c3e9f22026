package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// publisher is a backend that publishes one message after the other, each to
// the other gateway than the one before. What is not acknowledged is published
// again with the same key, to the other one.
type publisher struct {
	world *world
	end   context.CancelFunc
	done  chan struct{}

	mu   sync.Mutex // guards sent
	sent sent
}

// sent is what was acknowledged, by id, in order.
type sent struct {
	room, inbox []string
	repeated    int
}

func newPublisher(w *world) *publisher { return &publisher{world: w, done: make(chan struct{})} }

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
		if err := pause(ctx, time.Millisecond); err != nil {
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
		g := p.world.gateways[try%len(p.world.gateways)]
		id, err := post(context.WithoutCancel(ctx), g, body)
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

func post(ctx context.Context, g *gateway, body []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.admin+"/v1/publish", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct{ ID, Detail string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, answer.Detail)
	}
	return answer.ID, nil
}
