package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"wssgateway/examples/lab"
	"wssgateway/gateway/wire"
)

// world is a scenario while it runs.
type world struct {
	scenario scenario
	lab      *lab.Lab
	balancer *balancer
	members  []*member

	rolls    []roll
	rolled   time.Time // when the last was over, and everybody was connected
	balances [2]string // connections by node after the rolls, and after rebalancing
}

// roll is the replacement of one node.
type roll struct {
	node        string
	start, end  time.Time // from the signal until the node is ready again
	took        time.Duration
	connections int
	code        int
}

const configuration = `
drain_delay: %s
drain_timeout: %s
classes:
  "*": {history: {size: %d, ttl: 5m}}
  user: {history: {size: %d, ttl: 5m}}
`

func newWorld(ctx context.Context, s scenario) (*world, error) {
	kept := 1000
	if s.noHistory {
		kept = 0
	}
	w := &world{scenario: s}
	var err error
	w.lab, err = lab.New(ctx, fmt.Sprintf(configuration, s.drainDelay, s.drainTimeout, kept, kept))
	if err != nil {
		return w, err
	}
	for _, name := range []string{"gateway-1", "gateway-2", "gateway-3"} {
		if _, err := w.lab.AddNode(name); err != nil {
			return w, err
		}
	}
	for _, n := range w.lab.Nodes {
		if err := n.AwaitReady(ctx); err != nil {
			return w, err
		}
	}
	w.balancer = &balancer{nodes: w.lab.Nodes}
	for i := range s.clients {
		m, err := newMember(w, i)
		if err != nil {
			return w, err
		}
		w.members = append(w.members, m)
	}
	return w, nil
}

// close ends the world. If it did not go well, what the processes said is shown.
func (w *world) close(failed bool) error {
	if failed && w.lab.Log() != "" {
		if b, err := os.ReadFile(w.lab.Log()); err == nil {
			fmt.Fprintf(os.Stderr, "%s\n", b[max(0, len(b)-20_000):])
		}
	}
	return w.lab.Close()
}

// room returns the name of one of the rooms, each of which has twenty members.
func (w *world) room(i int) string { return fmt.Sprint("room:", i%max(1, w.scenario.clients/10)) }

// randomChannel returns a room, or now and then an inbox.
func (w *world) randomChannel() string {
	i := rand.N(w.scenario.clients)
	if rand.N(4) == 0 {
		return wire.Inbox(w.members[i].user)
	}
	return w.room(i)
}

// play connects everybody, publishes, rolls the nodes, and waits until what was
// published has come.
func (w *world) play(ctx context.Context) (*publisher, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { w.balancer.run(ctx) })
	clientsCtx, stopClients := context.WithCancel(ctx)
	defer stopClients()
	failed := make(chan error, len(w.members))
	for _, m := range w.members {
		wg.Go(func() {
			if err := m.client.Run(clientsCtx); err != nil {
				failed <- fmt.Errorf("%s: %w", m.user, err)
			}
		})
	}
	for _, m := range w.members {
		if err := m.client.AwaitConnected(ctx); err != nil {
			return nil, err
		}
	}
	for range w.scenario.frozen {
		if err := freeze(ctx, w.balancer); err != nil {
			return nil, err
		}
	}
	p := newPublisher(w)
	publishing, stopPublishing := context.WithCancel(ctx)
	published := make(chan struct{})
	wg.Go(func() { p.run(publishing); close(published) })
	err := w.rollAll(ctx)
	w.rolled = time.Now()
	if w.scenario.rebalance && err == nil {
		err = w.rebalance(ctx)
	}
	stopPublishing()
	select {
	case <-published:
	case <-ctx.Done():
		return nil, errors.Join(err, ctx.Err())
	}
	err = errors.Join(err, w.settle(ctx, p))
	select {
	case f := <-failed:
		err = errors.Join(err, f)
	default:
	}
	return p, err
}

// calm is how long it is quiet before, between and after the rolls.
const calm = 2 * time.Second

func (w *world) rollAll(ctx context.Context) error {
	for range w.scenario.rounds {
		for i, n := range w.lab.Nodes {
			if err := lab.Pause(ctx, calm); err != nil {
				return err
			}
			restarted := make(chan error, 1)
			if w.scenario.redis && i == 1 {
				go func() { restarted <- w.restartRedis(ctx) }()
			} else {
				restarted <- nil
			}
			if err := errors.Join(w.rollOne(ctx, n), <-restarted); err != nil {
				return err
			}
		}
	}
	if err := lab.Pause(ctx, calm); err != nil {
		return err
	}
	return w.awaitConnected(ctx)
}

// awaitConnected waits until everybody has a connection: after a kill some may
// have tried several times, each after a longer pause.
func (w *world) awaitConnected(ctx context.Context) error {
	for _, m := range w.members {
		for !m.isConnected() {
			if err := lab.Pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) rollOne(ctx context.Context, n *lab.Node) (err error) {
	r := roll{node: n.Name, start: time.Now(), connections: w.on(n.Name)}
	if w.scenario.kill {
		err = n.Kill()
	} else {
		r.code, err = n.Terminate()
	}
	if err != nil {
		return err
	}
	r.took = time.Since(r.start)
	if err := errors.Join(lab.Pause(ctx, 500*time.Millisecond), n.Start(), n.AwaitReady(ctx)); err != nil {
		return err
	}
	r.end = time.Now()
	w.rolls = append(w.rolls, r)
	return nil
}

// restartRedis stops Redis when a node has begun to drain, and starts it again.
func (w *world) restartRedis(ctx context.Context) error {
	const until, away = 4 * time.Second, 2 * time.Second
	return errors.Join(lab.Pause(ctx, until), w.lab.Redis.Stop(), lab.Pause(ctx, away), w.lab.Redis.Start(ctx))
}

// on returns how many members are connected to a node.
func (w *world) on(node string) (n int) {
	for _, m := range w.members {
		if m.on(node) {
			n++
		}
	}
	return n
}

// rebalance has the nodes with more than their part ask some clients to move, as
// after a scale-out. Of those that move, some come back by chance.
func (w *world) rebalance(ctx context.Context) error {
	w.balances[0] = w.balance()
	mean := float64(len(w.members)) / float64(len(w.lab.Nodes))
	for _, n := range w.lab.Nodes {
		surplus := float64(w.on(n.Name)) - mean
		if surplus < mean/10 {
			continue
		}
		share := min(1, 1.5*surplus/(surplus+mean))
		if err := n.Call(ctx, fmt.Sprintf("/v1/nodes/%s/rebalance?share=%.2f", n.Name, share), nil, nil); err != nil {
			return err
		}
	}
	err := lab.Pause(ctx, w.scenario.window()+time.Second)
	w.balances[1] = w.balance()
	return err
}

func (w *world) balance() string {
	var counts []string
	for _, n := range w.lab.Nodes {
		counts = append(counts, fmt.Sprint(w.on(n.Name)))
	}
	return strings.Join(counts, " ")
}

// settleTimeout is how long messages may take that were acknowledged.
const settleTimeout = 20 * time.Second

// settle waits until everybody has as many messages as were published, or will
// not get them any more.
func (w *world) settle(ctx context.Context, p *publisher) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for _, m := range w.members {
		want := 0
		for _, channel := range m.channels {
			want += len(p.acked[channel])
		}
		for m.has() < want {
			if lab.Pause(ctx, 20*time.Millisecond) != nil {
				return nil // the judge says what is missing
			}
		}
	}
	return nil
}
