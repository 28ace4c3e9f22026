package session

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrLimit is returned by Claim if the user has as many connections with this
// client as the limit allows.
var ErrLimit = errors.New("session: too many connections")

// claimTimeout is the longest that Claim takes, whatever its context says.
const claimTimeout = 10 * time.Second

// Claim asks for a session.
type Claim struct {
	User   string // no white space or braces
	Wanted string // id of the session to be resumed, as the client gave it; may be empty or anything else
	Device string
	Client string // kind of client: Limit counts its connections
	IP     string
	Limit  int    // connections of the user with this client over all nodes; 0: no limit
	Holder Holder // told when the session is lost
}

// Claimed is the answer to a Claim.
type Claimed struct {
	Session *Session
	Resumed bool // it is the wanted one
	// Acked is how far the device has read the inbox (Ack); "" if that is not
	// known, or there is no device.
	Acked string
	// Previous is the connection on another node that had the session until
	// now. Its node should be told (Evict there), to close it; else it learns
	// when it verifies what it holds. One on this node has been told.
	Previous *Owner
}

// Owner is a connection's hold of a session.
type Owner struct {
	Node       NodeID
	Session    string
	Generation uint64
}

// Claim gives the wanted session to a new connection, if it is the user's and
// connected or not left for too long, and else creates one. It is atomic over
// all nodes. It fails with ErrLimit, with the error of ctx if the node has no
// lease, or with that of Redis; then nothing stays claimed, even if Redis gets
// to it only later.
func (r *Registry) Claim(ctx context.Context, c Claim) (Claimed, error) {
	claimed, err := r.claim(ctx, c)
	switch {
	case errors.Is(err, ErrLimit):
		r.metrics.claims[claimLimit].Inc()
		return Claimed{}, err
	case err != nil:
		r.metrics.claims[claimError].Inc()
		return Claimed{}, fmt.Errorf("session: claim: %w", err)
	case claimed.Resumed:
		r.metrics.claims[claimResumed].Inc()
	default:
		r.metrics.claims[claimNew].Inc()
	}
	return claimed, nil
}

func (r *Registry) claim(ctx context.Context, c Claim) (Claimed, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	lease, seen, err := r.awaitLease(ctx)
	if err != nil {
		return Claimed{}, err
	}
	a := newAttempt(ctx, c, lease, seen)
	answer, err := r.try(ctx, a, seen.over())
	if len(answer.counted) > 0 {
		answer, err = r.tryWithoutDead(ctx, a, seen, answer)
	}
	switch {
	case err != nil:
		r.takeBack(a, err)
		return Claimed{}, err
	case len(answer.counted) > 0:
		r.discardEntries(a, "")
		return Claimed{}, ErrLimit
	}
	return r.granted(a, answer), nil
}

// granted makes the session this node's.
func (r *Registry) granted(a *attempt, got answer) Claimed {
	s := &Session{
		ID: got.id, User: a.User, Device: a.Device, Client: a.Client, IP: a.IP,
		Generation: got.generation, ConnectedAt: got.at,
		registry: r, holder: a.Holder, claim: a.claim, since: got.at.UnixMilli(),
	}
	s.channels, s.given = parseChannels(got.channels)
	if got.indexed {
		s.lease = a.lease
	}
	r.discardEntries(a, s.ID)
	if loser := r.hold(s); loser != nil {
		loser.holder.SessionLost(LossMoved)
	}
	claimed := Claimed{Session: s, Resumed: got.id == a.Wanted, Acked: got.acked}
	if got.previous.Session != "" && got.previous.Node != r.node {
		claimed.Previous = &got.previous
	}
	return claimed
}

// discardEntries takes the entries of a claim out of the index, except that of
// the session keep.
func (r *Registry) discardEntries(a *attempt, keep string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.lease != r.lease.id {
		return // that index is swept as a whole
	}
	for _, id := range []string{a.fresh, a.Wanted} {
		if id != "" && id != keep {
			r.discard(entry(a.claim, id, a.User))
		}
	}
}

// takeBack undoes a claim that failed with err.
func (r *Registry) takeBack(a *attempt, err error) {
	if neverSent(err) {
		r.discardEntries(a, "")
		return
	}
	r.abandon(a)
}

// abandon takes back, as soon as Redis can no longer do it, a claim of which
// nobody knows whether it was done. A wanted session is left as if its new
// connection had come and gone.
func (r *Registry) abandon(a *attempt) {
	s := Session{
		ID: a.fresh, User: a.User, registry: r, claim: a.claim, lease: a.lease,
		phase: abandoned, leftAt: a.deadline,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := s
	r.touch(&fresh)
	if a.Wanted != "" {
		s.ID, s.window = a.Wanted, r.cfg.ResumeWindow
		r.touch(&s)
	}
}
