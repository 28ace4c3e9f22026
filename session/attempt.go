package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// errLate is Redis's answer to a claim that it came to after its deadline.
var errLate = errors.New("redis was too slow")

const (
	// keepLeft is how many sessions without a connection are kept of a user, so
	// that a client that connects and drops in a loop fills nothing; or twice
	// the limit, or keepUnlimited if there is none.
	keepLeft      = 100
	keepUnlimited = 10_000
	// doubt is how old the known leases may be when a user is turned away
	// because of connections that might be those of a dead node.
	doubt = time.Second
)

// attempt is one claim on its way.
type attempt struct {
	Claim
	fresh    string // id of the session if it is a new one
	claim    string // unlike that of any other claim
	lease    string
	deadline time.Time // when Redis is no longer to do it
	redis    int64     // the same by Redis's clock, ms
}

func newAttempt(ctx context.Context, c Claim, lease string, seen leases) *attempt {
	if !validID(c.Wanted) {
		c.Wanted = ""
	}
	deadline, _ := ctx.Deadline() // claim sets one
	return &attempt{
		Claim:    c,
		fresh:    newID(),
		claim:    random(8),
		lease:    lease,
		deadline: deadline,
		redis:    seen.clock(deadline),
	}
}

func (a *attempt) keep() int {
	if a.Limit <= 0 {
		return keepUnlimited
	}
	return max(keepLeft, 2*a.Limit)
}

// appendEntries appends what the index must have before the claim, whatever comes
// of it.
func (a *attempt) appendEntries(to []any) []any {
	to = append(to, entry(a.claim, a.fresh, a.User))
	if a.Wanted != "" {
		to = append(to, entry(a.claim, a.Wanted, a.User))
	}
	return to
}

// answer is what claim.lua answered.
type answer struct {
	counted    []string // leases of the connections that reach the limit; none: granted
	id         string
	generation uint64
	at         time.Time
	previous   Owner // of no session if there is none
	channels   string
	acked      string
	indexed    bool // the index has the entries
}

// try runs the claim without counting sessions under the leases in over.
func (r *Registry) try(ctx context.Context, a *attempt, over map[string]int64) (answer, error) {
	args := []any{a.redis, a.Wanted, a.fresh, a.claim, a.lease, field(a.Client),
		field(details{a.Device, a.IP}), a.Limit, r.cfg.ResumeWindow.Milliseconds(), a.keep(), a.Device}
	for lease, end := range over {
		args = append(args, lease, end)
	}
	c := newCall(claimScript, r.keys.claim(a.User), args...)
	indexed, err := r.claims.do(ctx, a, c)
	if err != nil {
		return answer{}, err
	}
	got, err := parseAnswer(c)
	got.indexed = indexed
	return got, err
}

// tryWithoutDead tries again if some of the counted connections are those of
// dead nodes.
func (r *Registry) tryWithoutDead(ctx context.Context, a *attempt, seen leases, refused answer) (answer, error) {
	if time.Since(seen.at) < doubt && seen.knows(refused.counted) {
		return refused, nil // they were running a moment ago
	}
	seen, err := r.readLeases(ctx)
	if err != nil {
		return answer{}, fmt.Errorf("read leases: %w", err)
	}
	over := seen.over()
	dead := false
	for _, lease := range refused.counted {
		if !seen.running(lease) {
			over[lease] = seen.ends[lease] // 0 if it is no longer known
			dead = true
		}
	}
	if !dead {
		return refused, nil
	}
	return r.try(ctx, a, over)
}

func parseAnswer(c *call) (answer, error) {
	f, err := c.fields(1)
	if err != nil {
		return answer{}, err
	}
	switch {
	case f[0] == "late":
		return answer{}, errLate
	case f[0] == "limit":
		return answer{counted: f[1:]}, nil
	case f[0] != "ok" || len(f) < 8:
		return answer{}, errAnswer
	}
	generation, err1 := strconv.ParseUint(f[2], 10, 64)
	at, err2 := strconv.ParseInt(f[3], 10, 64)
	before, err3 := strconv.ParseUint(f[5], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return answer{}, fmt.Errorf("%w: %w", errAnswer, err)
	}
	a := answer{id: f[1], generation: generation, at: time.UnixMilli(at), channels: f[6], acked: parseAck(f[7])}
	if f[4] != "" {
		a.previous = Owner{nodeOf(f[4]), a.id, before}
	}
	return a, nil
}

// neverSent reports whether err says that there was no connection to Redis.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.Is(err, redis.ErrPoolTimeout) || errors.As(err, &op) && op.Op == "dial"
}
