package attack

import (
	"context"
	"fmt"
)

func limits() []Attack {
	return []Attack{{
		Name:      "too many requests",
		About:     "1 user, 2,000/s, some 350 at a time",
		PerSecond: 50,
		Wants:     []string{"error rate_limited", "closed 4029"},
		run: func(ctx context.Context, f *front) {
			f.flood(ctx, flood{peers: 1, perSecond: 2000, unit: message(`{"type":"ping","ref":1}`), reads: true, way: way{user: "mallory-hurries"}})
		},
	}, {
		Name:      "too many connections",
		About:     "60 of one user, 20/s come",
		PerSecond: 1,
		Wants:     []string{"connected", "closed 4029"},
		run: func(ctx context.Context, f *front) {
			coming := newPace(20)
			each(60, func(int) {
				if coming.wait(ctx, 1) {
					f.hold(ctx, "mallory-many", nil)
				}
			})
		},
	}, {
		Name:      "half frames",
		About:     "60 peers, 10/s come, a third without token: they send 60,000 bytes of a frame of 65,000 and wait",
		PerSecond: 1,
		Wants:     []string{"connected"},
		run: func(ctx context.Context, f *front) {
			part := frame(fin|text, make([]byte, 65_000))[:60_000]
			coming := newPace(10)
			each(60, func(i int) {
				if coming.wait(ctx, 1) {
					f.hold(ctx, []string{"", fmt.Sprint("mallory-holds-", i), fmt.Sprint("mallory-holds-", i)}[i%3], part)
				}
			})
		},
	}}
}

// hold connects, sends what it has, and stays as long as it may.
func (f *front) hold(ctx context.Context, user string, b []byte) {
	p, err := f.open(ctx, way{user: user})
	if err != nil {
		return
	}
	defer p.close()
	f.acted(1, 0)
	if p.send(0, b) == nil {
		p.react(holding)
	}
}
