package gateway

import (
	"context"
	"sync"

	"wssgateway/broker"
	"wssgateway/session"
)

// leavesAtOnce is how many leaves of ended sessions a node has under way on a lane, for
// all who call Gone together: what fills a pipeline. Those of a lane whose server does
// not answer take the slots of no other.
const leavesAtOnce = 256

// leave is what is told of a session on a channel.
type leave struct {
	session *session.Gone
	channel string
}

// Gone ends the memberships of sessions that are over, as session.Config.Gone
// wants it. Those that it does not get done by the end of ctx are Untold.
func (g *Gateway) Gone(ctx context.Context, gone []session.Gone) error {
	var mu sync.Mutex
	untold := make(session.Untold)
	failed := func(l leave, err error) {
		mu.Lock()
		defer mu.Unlock()
		untold[l.session.ID] = err
	}
	var lanes sync.WaitGroup
	for lane, leaves := range g.leavesByLane(gone) {
		lanes.Go(func() { g.presence.tellLeaves(ctx, lane, leaves, failed) })
	}
	lanes.Wait()
	if len(untold) > 0 {
		return untold
	}
	return nil
}

func (g *Gateway) leavesByLane(gone []session.Gone) map[int][]leave {
	lanes := make(map[int][]leave)
	for i := range gone {
		for _, channel := range gone[i].Channels {
			if g.cfg.class(channel).Presence {
				lane := g.broker.LaneOf(presenceChannel(channel))
				lanes[lane] = append(lanes[lane], leave{&gone[i], channel})
			}
		}
	}
	return lanes
}

// tellLeaves tells of leaves on a lane's channels, some at a time.
func (p *presence) tellLeaves(ctx context.Context, lane int, leaves []leave, failed func(leave, error)) {
	slots := p.leaving()[lane]
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, l := range leaves {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			for _, l := range leaves[i:] {
				failed(l, ctx.Err())
			}
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := p.tell(ctx, presenceLeave, l.channel, *l.session, broker.AnyGeneration); err != nil {
				failed(l, err)
			}
		})
	}
}

// leavingSlots returns the slots of each lane.
func leavingSlots(b *broker.Broker) []chan struct{} {
	lanes := make([]chan struct{}, b.Lanes())
	for i := range lanes {
		lanes[i] = make(chan struct{}, leavesAtOnce)
	}
	return lanes
}
