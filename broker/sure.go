package broker

import (
	"context"
	"slices"
	"strings"
	"time"
)

// A node that has just started does not know whether the first epoch it finds is the
// first: Redis may have lost all data a moment ago. It vouches for 0-0 once every node
// whose link stands has seen the epoch, and had known no other. If one that was away
// comes later and had, all who were vouched for are reset.
const (
	// epochDoubt is how long an epoch is doubted because of a node that is subscribed
	// but does not come to look: one whose way to Redis has broken.
	epochDoubt = time.Minute
	// agreedTTL is how long it is remembered who has looked.
	agreedTTL = 2 * epochDoubt
	// sureWait bounds what is waited for it, a look a second.
	sureWait = 3 * watchEvery
)

func (v *life) isSure() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sure
}

// awaitSure waits until the lane knows whether its epoch is the first, and reports
// false if it does not in time.
func (v *life) awaitSure(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, sureWait)
	defer cancel()
	for {
		v.mu.Lock()
		decided, verdict := v.sure || !v.base.IsZero(), v.verdict
		v.mu.Unlock()
		if decided {
			return true
		}
		select {
		case <-verdict:
		case <-ctx.Done():
			return false
		}
	}
}

// decided has those look who wait for a verdict. v.mu is held.
func (v *life) decided() {
	close(v.verdict)
	v.verdict = make(chan struct{})
}

// makeSure looks whether every node has agreed that an epoch is the first.
func (l *lane) makeSure(ctx context.Context) {
	v := &l.life
	v.mu.Lock()
	epoch, decided := v.epoch, v.sure || !v.base.IsZero()
	old := l.b.clock.redis(time.Now()).Sub(v.begun) > epochDoubt
	v.mu.Unlock()
	if decided || !old && !l.allAgree(ctx) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.epoch == epoch {
		v.sure = true
		v.decided()
	}
}

// allAgree reports whether all nodes whose links are open have seen the epoch, and
// had known no other.
func (l *lane) allAgree(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	master, err := masterOf(ctx, l.rdb, l.tally.key)
	if err != nil {
		return false
	}
	list := master.PubSubChannels
	if l.b.layout.sharded {
		list = master.PubSubShardChannels
	}
	probes, err := list(ctx, escapeGlob(l.b.layout.probe(l.number, ""))+"*").Result()
	if err != nil {
		return false
	}
	reply, err := l.batch.do(ctx, "SMEMBERS", l.b.layout.agreed(l.number))
	if err != nil {
		return false
	}
	agreed, _ := reply.([]any)
	return !slices.ContainsFunc(probes, func(probe string) bool { return !slices.Contains(agreed, any(probe)) })
}

// escapeGlob has a pattern of Redis match nothing but the text itself.
func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`, "^", `\^`).Replace(s)
}
