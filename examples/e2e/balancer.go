package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"wssgateway/examples/lab"
)

// balancer sends each new connection to one of the nodes that say they are
// ready, as a Service of Kubernetes does: at random, and as of a moment ago.
type balancer struct {
	nodes []*lab.Node

	mu    sync.Mutex // guards what follows
	ready []*lab.Node
}

// lookEvery is how long a node that is no longer ready may still be chosen.
const lookEvery = 200 * time.Millisecond

func (b *balancer) run(ctx context.Context) {
	for {
		var ready []*lab.Node
		for _, n := range b.nodes {
			if n.Ready() {
				ready = append(ready, n)
			}
		}
		b.mu.Lock()
		b.ready = ready
		b.mu.Unlock()
		if lab.Pause(ctx, lookEvery) != nil {
			return
		}
	}
}

// choose returns a node that was ready a moment ago, or nil.
func (b *balancer) choose() *lab.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ready) == 0 {
		return nil
	}
	return b.ready[rand.N(len(b.ready))]
}

var errNoNode = errors.New("no node is ready")

// client returns an HTTP client whose connections go where the balancer sends
// them, whatever the address.
func (b *balancer) client() *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			n := b.choose()
			if n == nil {
				return nil, errNoNode
			}
			return dialer.DialContext(ctx, network, n.Public)
		},
	}}
}
