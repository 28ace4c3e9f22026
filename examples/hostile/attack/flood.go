package attack

import (
	"bytes"
	"context"
	"time"
)

func floods() []Attack {
	const small = 6 // bytes of an empty frame
	return []Attack{{
		Name:      "unread pongs",
		About:     "4 peers without token, a window of 2 KiB, 500,000 pings/s in all; none reads",
		PerSecond: 100,
		Wants:     []string{"closed 1008"},
		run: func(ctx context.Context, f *front) {
			f.flood(ctx, flood{peers: 4, perSecond: 500_000, unit: frame(fin|ping, nil), way: way{window: smallWindow}})
		},
	}, {
		Name:      "pings",
		About:     "2 peers without token, 250,000 pings/s in all; they read",
		PerSecond: 100,
		Wants:     []string{"closed 1008"},
		run: func(ctx context.Context, f *front) {
			f.flood(ctx, flood{peers: 2, perSecond: 250_000, unit: frame(fin|ping, nil), reads: true})
		},
	}, {
		Name:      "pings of a user",
		About:     "1 peer with a token, 50,000 pings/s of 125 bytes; it reads",
		PerSecond: 100,
		Wants:     []string{"closed 1008"},
		run: func(ctx context.Context, f *front) {
			f.flood(ctx, flood{peers: 1, perSecond: 50_000, unit: frame(fin|ping, make([]byte, 125)), reads: true, way: way{user: "mallory-ping"}})
		},
	}, {
		Name:      "empty fragments",
		About:     "2 peers without token, 500,000 fragments/s in all, of messages that never end",
		PerSecond: 100,
		Wants:     []string{"closed 1008"},
		run: func(ctx context.Context, f *front) {
			f.flood(ctx, flood{peers: 2, perSecond: 3_000_000 / small, first: frame(text, []byte("{")), unit: frame(continuation, nil), reads: true})
		},
	}, {
		Name:      "fragments of a byte",
		About:     "2 peers, one with a token, 100,000 fragments/s in all",
		PerSecond: 100,
		Wants:     []string{"closed 1008"},
		run: func(ctx context.Context, f *front) {
			each(2, func(i int) {
				f.flood(ctx, flood{peers: 1, perSecond: 50_000, first: frame(text, []byte("{")), unit: frame(continuation, []byte(" ")),
					reads: true, way: way{user: []string{"", "mallory-bytes"}[i]}})
			})
		},
	}}
}

// flood is frames without end, from a few peers that come again when they are
// closed, each twice a second at most.
type flood struct {
	peers     int
	perSecond float64 // of unit, all peers together
	first     []byte  // of a connection
	unit      []byte
	reads     bool
	way       way
}

// chunk is about how much is written at a time.
const chunk = 12 << 10

func (f *front) flood(ctx context.Context, fl flood) {
	n := chunk / len(fl.unit)
	units := bytes.Repeat(fl.unit, n)
	sending := newPace(fl.perSecond)
	each(fl.peers, func(int) {
		for coming := newPace(2); coming.wait(ctx, 1); {
			f.floodOnce(ctx, fl, func(p *peer) error {
				if !sending.wait(ctx, n) {
					return ctx.Err()
				}
				return p.send(n, units)
			})
		}
	})
}

// floodOnce opens a connection and sends until that fails.
func (f *front) floodOnce(ctx context.Context, fl flood, send func(*peer) error) {
	p, err := f.open(ctx, fl.way)
	if err != nil {
		return
	}
	defer p.close()
	f.saw("opened")
	reading := make(chan struct{})
	if fl.reads {
		go func() { defer close(reading); p.react(holding) }()
	}
	if len(fl.first) > 0 && p.send(0, fl.first) != nil {
		return
	}
	for send(p) == nil {
	}
	if fl.reads {
		_ = p.conn.SetReadDeadline(time.Now().Add(lastWords))
		<-reading
		return
	}
	p.react(lastWords)
}
