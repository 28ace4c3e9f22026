package main

import (
	"context"
	"sync/atomic"
	"time"

	"wssgateway/gateway/wire"
)

// idle connects, waits until pings have gone round twice, and tells what the
// connections take.
func idle(ctx context.Context, b *bench) error {
	before, err := usages(b.pids)
	if err != nil {
		return err
	}
	if err := b.connectAll(ctx); err != nil {
		return err
	}
	round := b.subscribers[0].ping
	if round == 0 {
		round = b.duration // the server does not ping
	}
	b.progress.phase("first round of pings")
	if err := pause(ctx, round); err != nil {
		return err
	}
	b.progress.phase("second round of pings")
	middle, err := usages(b.pids)
	if err != nil {
		return err
	}
	if err := pause(ctx, round); err != nil {
		return err
	}
	after, err := usages(b.pids)
	if err != nil {
		return err
	}
	for i, u := range after {
		b.report.add(u.name+" RSS", float64(u.rss)/(1<<20), "MiB")
		b.report.add(u.name+" RSS per connection", float64(u.rss-before[i].rss)/1024/float64(b.connections), "KiB")
		b.report.add(u.name+" CPU", float64((u.cpu-middle[i].cpu).Microseconds())/1e3/round.Seconds(), "ms/s")
	}
	return b.roundCall(ctx)
}

// roundCall shows that every connection still gets what is published.
func (b *bench) roundCall(ctx context.Context) error {
	b.progress.phase("a last message to everybody")
	f, err := b.publish(ctx, wire.Broadcast, b.connections)
	if err != nil {
		return err
	}
	return f.await(ctx)
}

// fanout publishes to rooms.
func fanout(ctx context.Context, b *bench) error {
	rooms, receivers := b.perRoom()
	return b.underLoad(ctx, work{"delivery", "deliveries"}, func(n int) (string, int) {
		room := rooms[n%len(rooms)]
		return room, receivers[room]
	})
}

// direct publishes to the inbox of one user each.
func direct(ctx context.Context, b *bench) error {
	return b.underLoad(ctx, work{"message", "messages"}, func(n int) (string, int) {
		return wire.Inbox(b.subscribers[(n*7919)%b.connections].user), 1
	})
}

// underLoad connects, publishes, and tells what a unit of work took.
func (b *bench) underLoad(ctx context.Context, unit work, to target) error {
	if err := b.connectAll(ctx); err != nil {
		return err
	}
	b.progress.phase("warming up")
	if err := b.load(ctx, b.warmUp, to); err != nil {
		return err
	}
	b.forget()
	b.progress.phase("measuring")
	m, err := b.measure()
	if err != nil {
		return err
	}
	if err := b.load(ctx, b.duration, to); err != nil {
		return err
	}
	if err := m.end(unit, m.deliveries()); err != nil {
		return err
	}
	b.report.latency("latency", b.latencies())
	return nil
}

// storm cuts all connections at once, and they come back at once.
func storm(ctx context.Context, b *bench) error {
	if err := b.connectAll(ctx); err != nil {
		return err
	}
	b.progress.phase("settling")
	if err := b.roundCall(ctx); err != nil { // also gives every one a position
		return err
	}
	if err := pause(ctx, b.warmUp); err != nil {
		return err
	}
	b.progress.phase("the storm")
	m, err := b.measure()
	if err != nil {
		return err
	}
	b.connected.Store(0)
	if err := b.each(ctx, func(s *subscriber) error { s.cut(); return nil }); err != nil {
		return err
	}
	var slowest atomic.Int64
	err = b.each(ctx, func(s *subscriber) error {
		if err := s.connect(ctx); err != nil {
			return err
		}
		b.connected.Add(1)
		slowest.Store(int64(time.Since(m.begin)))
		return nil
	})
	b.report.add("all back after", time.Duration(slowest.Load()).Seconds(), "s")
	b.report.add("new sessions", float64(b.fresh.Load()), "")
	if err != nil {
		return err
	}
	if err := m.end(work{"connection", "connections"}, int64(b.connections)); err != nil {
		return err
	}
	return b.roundCall(ctx)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
