package session

import (
	"fmt"
	"strconv"
	"time"
)

// departure is the end of a connection that is not told by itself: its node is
// dead, or nobody knows whether its claim was done.
type departure struct {
	id, user, claim, lease string
	at                     int64 // ms of Redis's clock; 0: now
	window                 time.Duration
}

// look returns the call that says what comes of a departure, which has done nothing
// yet.
func (r *Registry) look(d departure) *call {
	return newCall(lookScript, r.keys.user(d.user), d.id, d.claim, d.lease, d.at, d.window.Milliseconds())
}

// leave returns the call that carries it out. What is to be told of it must be noted
// before: should the caller die, nobody else would know.
func (r *Registry) leave(d departure) *call {
	return newCall(leaveScript, r.keys.user(d.user), d.id, d.claim, d.lease, d.at, d.window.Milliseconds())
}

// note returns the call that notes when a session that was looked at is over, or
// nil if it is not under this claim, or over already.
func (r *Registry) note(d departure, looked *call, seen leases) (*call, error) {
	f, err := looked.fields(0)
	if err != nil || len(f) < 3 {
		return nil, err
	}
	ends, err1 := strconv.ParseInt(f[0], 10, 64)
	generation, err2 := strconv.ParseUint(f[1], 10, 64)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("%w: %q", errAnswer, f)
	}
	in := time.Duration(max(0, ends-seen.clock(time.Now()))) * time.Millisecond
	return r.goneCall(d.id, in, told{
		Generation: generation, User: d.user, Node: nodeOf(d.lease).Name(), Reason: reasonNodeLost,
		Channels: r.channelsOf(d.user, d.id, f[2]),
	}), nil
}

// channelsOf returns the channels in what Redis has of a session.
func (r *Registry) channelsOf(user, id, stored string) []string {
	all, _ := parseChannels(stored)
	names, ok := decodeList(all)
	if !ok {
		r.foundStrange("channels", user, id)
	}
	return names
}
