package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"wssgateway/broker"
)

const (
	// departurePatience is how long a user whose last session has left may take to
	// come back unnoticed: a page that changes, a client that goes back and forth.
	departurePatience = time.Second
	// departureEvery is how often every node looks for users that have not, up to
	// half as much again: so a leave is told one to two seconds after it.
	departureEvery = 500 * time.Millisecond
	// departureHold is how long a node has to tell of those it has taken; what it
	// has not told by then another node takes.
	departureHold = 3 * time.Second
)

// tellDepartures tells of users that have left, until ctx is done. Redis keeps
// them, so that it does not matter which node does, nor which one they left from. A
// lane whose server does not answer holds up no other.
func (p *presence) tellDepartures(ctx context.Context) {
	var lanes sync.WaitGroup
	for lane := range p.gw.broker.Lanes() {
		lanes.Go(func() { p.tellLane(ctx, lane) })
	}
	lanes.Wait()
}

func (p *presence) tellLane(ctx context.Context, lane int) {
	for sleep(ctx, departureEvery+rand.N(departureEvery/2)) {
		for more := true; more; {
			var err error
			if more, err = p.tellSome(ctx, lane); err != nil && ctx.Err() == nil {
				p.gw.log.Debug("departures not told, will repeat", "error", err)
			}
		}
	}
}

// tellSome tells of some users that have left, and reports whether there were any
// and all went well.
func (p *presence) tellSome(ctx context.Context, lane int) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, departureHold)
	defer cancel()
	departed, err := p.gw.broker.Departures(ctx, lane, departureHold)
	errs := make([]error, len(departed))
	var wg sync.WaitGroup
	for i, d := range departed {
		wg.Go(func() { errs[i] = p.depart(ctx, d) })
	}
	wg.Wait()
	err = errors.Join(err, errors.Join(errs...))
	return err == nil && len(departed) > 0, err
}

func (p *presence) depart(ctx context.Context, d broker.Departure) error {
	told, err := p.gw.broker.Depart(ctx, d, presencePayload(presenceLeave, d.User), presenceRetention)
	if told {
		p.gw.metrics.presence[presenceLeave].Inc()
	}
	return err
}
