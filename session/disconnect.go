package session

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	// endedKept is how long it is remembered that a session was disconnected, for
	// a node that is away meanwhile and has not heard of it. One that was away for
	// longer writes nothing back that Redis does not have.
	endedKept = time.Hour
	// endedMost is how many are remembered of one user.
	endedMost = 1000
)

// Disconnected says what a Disconnect has ended.
type Disconnected struct {
	// Owners are those on live nodes that had a connection. Their nodes should be
	// told, to close it; one that is not finds out when it verifies what it holds.
	Owners []Owner
	// Connections is how many sessions had one, or may have it on a node that
	// was away.
	Connections int
}

// Disconnect ends one session of a user, or all if sessionID is "", wherever
// they are, connected or left: none can be resumed, and a node that was away
// loses it when it comes back (LossDisconnected). The reason is for whoever is told.
func (r *Registry) Disconnect(ctx context.Context, user, sessionID, reason string) (Disconnected, error) {
	sessions, nodes := newCall(sessionsScript, r.keys.user(user)), r.leasesCall()
	if err := r.run(ctx, sessions, nodes); err != nil {
		return Disconnected{}, fmt.Errorf("session: disconnect: %w", err)
	}
	seen, err := nodes.leases()
	if err != nil {
		return Disconnected{}, fmt.Errorf("session: read leases: %w", err)
	}
	if err := r.noteBefore(ctx, sessions, user, sessionID, reason); err != nil {
		return Disconnected{}, fmt.Errorf("session: disconnect: %w", err)
	}
	possible := 1
	if sessionID != "" && !validID(sessionID) {
		possible = 0
	}
	script := newCall(disconnectScript, r.keys.user(user), sessionID, endedKept.Milliseconds(), endedMost, possible)
	if err := r.run(ctx, script); err != nil {
		return Disconnected{}, fmt.Errorf("session: disconnect: %w", err)
	}
	all, err := parseEnded(script)
	if err != nil {
		return Disconnected{}, fmt.Errorf("session: disconnect: %w", err)
	}
	d, notes := r.disconnected(all, user, reason, seen)
	if err := r.noteAll(ctx, notes); err != nil {
		// They are over, and each has a note from before.
		r.log.Warn("telling of disconnected sessions is delayed", "user", user, "error", err)
	}
	return d, nil
}

// noteBefore notes that the connected sessions of a user are about to be over. Should
// this node die right after it has ended them, with theirs or before, it is told all
// the same. Those that were left have a note.
func (r *Registry) noteBefore(ctx context.Context, sessions *call, user, sessionID, reason string) error {
	f, err := sessions.fields(0)
	if err != nil {
		return err
	}
	var notes []*call
	for ; len(f) >= 3; f = f[3:] {
		if sessionID != "" && sessionID != f[0] {
			continue
		}
		rec, err := parseRecord(f[1])
		if err != nil {
			r.foundStrange("sessions", user, f[0])
			continue
		}
		// Looked at when they are over, or this has failed.
		notes = append(notes, r.goneCall(f[0], goneHold, told{
			Generation: rec.generation, User: user, Node: nodeOf(rec.lease).Name(), Reason: reason,
			Channels: r.channelsOf(user, f[0], f[2]),
		}))
	}
	return r.noteAll(ctx, notes)
}

// disconnected returns what is to be said of sessions that were ended, and the notes
// that have them told of as soon as that may be.
func (r *Registry) disconnected(all []ended, user, reason string, seen leases) (d Disconnected, notes []*call) {
	for _, e := range all {
		in := time.Duration(0)
		if e.connection != connectionNone {
			d.Connections++
		}
		if e.connection == connectionOpen && seen.running(e.lease) {
			d.Owners = append(d.Owners, Owner{nodeOf(e.lease), e.id, e.generation})
			in = goneMargin // its node knows better, and says so at once
		}
		notes = append(notes, r.goneCall(e.id, in, told{
			Generation: e.generation + 1, // no connection's: theirs do not take its place
			User:       user, Node: nodeOf(e.lease).Name(), Reason: reason,
			Channels: r.channelsOf(user, e.id, e.channels),
		}))
	}
	return d, notes
}

func (r *Registry) noteAll(ctx context.Context, notes []*call) error {
	if len(notes) == 0 || !r.tells() {
		return nil
	}
	return r.run(ctx, notes...)
}

// What disconnect.lua says of the connection of a session.
const (
	connectionNone = "0" // it has gone
	connectionOpen = "1"
	// "2": its node went without a word
)

// ended is a session that disconnect.lua has ended.
type ended struct {
	id, lease, connection, channels string
	generation                      uint64
}

func parseEnded(c *call) ([]ended, error) {
	answer, err := c.answer.Slice()
	if err != nil {
		return nil, err
	}
	var all []ended
	for _, one := range answer {
		row, _ := one.([]any)
		f := texts(row)
		if len(f) != 5 {
			return nil, errAnswer
		}
		generation, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errAnswer, err)
		}
		all = append(all, ended{id: f[0], generation: generation, lease: f[2], connection: f[3], channels: f[4]})
	}
	return all, nil
}
