package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"wssgateway/broker"
	"wssgateway/client"
	"wssgateway/gateway/wire"
)

// roll has clients that follow the protocol stay connected under steady load,
// while somebody else replaces the nodes, and tells what they noticed. A signal
// ends the load early, when the nodes are done, and nothing else.
func roll(ctx context.Context, b *bench) error {
	if b.rate == 0 {
		b.rate = 100
	}
	r := &rolling{bench: b, way: newWay(b.urls)}
	rest := context.WithoutCancel(ctx)
	running, stop := context.WithCancel(rest)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	clients.Go(func() { r.way.run(running) })
	b.progress.phase("connecting")
	err := b.each(ctx, func(s *subscriber) error {
		c, err := r.client(s)
		if err != nil {
			return err
		}
		clients.Go(func() {
			if err := c.Run(running); err != nil {
				s.fail(err)
			}
		})
		if err := c.AwaitConnected(ctx); err != nil {
			return err
		}
		b.connected.Add(1)
		return nil
	})
	if err != nil {
		return err
	}
	b.progress.phase("roll the nodes now")
	loading, enough := context.WithTimeout(ctx, b.duration)
	defer enough()
	if err := r.load(rest, loading.Done()); err != nil {
		return err
	}
	b.progress.phase("waiting for what is under way")
	if err := b.settle(rest); err != nil {
		return err
	}
	r.report()
	return nil
}

// rolling is what the clients of a roll noticed.
type rolling struct {
	bench *bench
	way   *way

	mu        sync.Mutex // guards what follows
	joined    []time.Duration
	handovers int
	without   []time.Duration // how long a client had no connection
}

// client returns a client of the library's in the place of a cheap connection.
func (r *rolling) client(s *subscriber) (*client.Client, error) {
	var lost time.Time
	h := client.Handler{
		Message: func(m client.Message) { s.message(m) },
		Gap:     func(string, string) { r.bench.gaps.Add(1) },
	}
	first := true
	c, err := client.New(r.bench.urls[0], client.Options{
		Token:      func(context.Context) (string, error) { return s.token, nil },
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: r.way.dial, DisableKeepAlives: true}},
		Inbox:      h, Other: h,
		Connected: func(c client.Connected) {
			if first {
				first = false
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.joined = append(r.joined, r.bench.now())
			if c.Handover {
				r.handovers++
			}
			gap := time.Duration(0)
			if !lost.IsZero() {
				gap = c.At.Sub(lost)
			}
			r.without = append(r.without, gap)
			lost = time.Time{}
		},
		Disconnected: func(d client.Disconnected) { lost = d.At },
	})
	if err != nil {
		return nil, err
	}
	for _, room := range s.rooms {
		if _, err := c.Subscribe(room, h); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// message takes in what the client library hands on.
func (s *subscriber) message(m client.Message) {
	now := s.bench.now()
	data, ok := bytes.CutPrefix(m.Data, noteStart[len(`"data":`):])
	n, err := parseNote(data)
	if !ok {
		err = errForeign
	}
	var id broker.ID
	if err == nil && m.ID != "" {
		id, err = broker.ParseID(m.ID)
	}
	if err != nil {
		s.fail(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream(m.Channel).take(id, n.n) {
		s.latency = append(s.latency, now-n.at)
	}
	s.bench.arrived(n.n)
}

// ackTimeout is how long a message is published again and again; the gateway keeps
// keys for longer.
const ackTimeout = 4 * time.Minute

// load publishes at --rate to random rooms and inboxes until it is enough. What is
// not acknowledged is published again, with the same key.
func (r *rolling) load(ctx context.Context, enough <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := r.bench
	rooms, inRoom := b.perRoom()
	tick := time.NewTicker(time.Second / time.Duration(b.rate))
	defer tick.Stop()
	var wg sync.WaitGroup
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			wg.Wait()
			return context.Cause(ctx)
		case <-enough:
			wg.Wait()
			return context.Cause(ctx)
		}
		channel := rooms[rand.N(len(rooms))]
		receivers := inRoom[channel]
		if rand.N(2) == 0 {
			channel, receivers = wire.Inbox(b.subscribers[rand.N(b.connections)].user), 1
		}
		wg.Go(func() {
			if err := r.insist(ctx, b.fly(receivers), channel); err != nil {
				cancel(err)
			}
		})
	}
}

// insist publishes a message until it is acknowledged.
func (r *rolling) insist(ctx context.Context, f *flight, channel string) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	for {
		err := r.bench.send(ctx, f, channel)
		if err == nil || pause(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

// settle waits until all that was acknowledged has come everywhere, or for as
// long as a message may take.
func (b *bench) settle(ctx context.Context) error {
	deadline := time.Now().Add(arrivalTimeout)
	for time.Now().Before(deadline) && b.missing() > 0 {
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (r *rolling) report() {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.bench.report
	b.add("reconnects", float64(len(r.joined)), "")
	b.add("of them handovers", float64(r.handovers), "")
	perSecond := make(map[int]int)
	for _, at := range r.joined {
		perSecond[int(at/time.Second)]++
	}
	peak := 0
	for _, n := range perSecond {
		peak = max(peak, n)
	}
	b.add("peak reconnects/s", float64(peak), "")
	slices.Sort(r.without)
	b.latency("without a connection", r.without)
	b.latency("latency", r.bench.latencies())
}

// way leads connections to nodes that are ready, as a Service of Kubernetes does:
// at random, and as of a moment ago.
type way struct {
	urls []string

	mu    sync.Mutex // guards what follows
	ready []string   // host:port
}

func newWay(urls []string) *way { return &way{urls: urls} }

// run looks at /readyz of every node until ctx is done. Behind a single URL
// somebody else does.
func (w *way) run(ctx context.Context) {
	const every = 200 * time.Millisecond
	for {
		var ready []string
		for _, address := range w.urls {
			u, err := url.Parse(address)
			if err != nil {
				panic(err) // the options were checked
			}
			if len(w.urls) == 1 || isReady(ctx, u) {
				ready = append(ready, u.Host)
			}
		}
		w.mu.Lock()
		w.ready = ready
		w.mu.Unlock()
		if pause(ctx, every) != nil {
			return
		}
	}
}

func isReady(ctx context.Context, u *url.URL) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	probe := url.URL{Scheme: "http", Host: u.Host, Path: "/readyz"}
	if u.Scheme == "wss" {
		probe.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, probe.String(), nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (w *way) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	if len(w.urls) > 1 && len(w.ready) > 0 {
		address = w.ready[rand.N(len(w.ready))]
	}
	w.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, network, address)
}
