package session

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Info describes a connected session.
type Info struct {
	ID          string
	Device      string
	Client      string
	Node        string // name
	IP          string
	ConnectedAt time.Time
	Channels    []string
	Owner       Owner // the connection that holds it
}

// User returns the sessions of a user that are connected on live nodes, oldest
// connection first. It asks Redis. Other nodes' channels are as of a moment ago.
func (r *Registry) User(ctx context.Context, user string) ([]Info, error) {
	sessions := newCall(sessionsScript, r.keys.user(user))
	nodes := r.leasesCall()
	if err := r.run(ctx, sessions, nodes); err != nil {
		return nil, fmt.Errorf("session: read user: %w", err)
	}
	seen, err := nodes.leases()
	if err != nil {
		return nil, fmt.Errorf("session: read leases: %w", err)
	}
	f, err := sessions.fields(0)
	if err != nil {
		return nil, fmt.Errorf("session: read user: %w", err)
	}
	var infos []Info
	for ; len(f) >= 3; f = f[3:] {
		rec, err := parseRecord(f[1])
		if err != nil || !seen.running(rec.lease) {
			continue // of another version, or of a dead node
		}
		infos = append(infos, rec.info(f[0], f[2]))
	}
	slices.SortFunc(infos, func(a, b Info) int {
		return cmp.Or(a.ConnectedAt.Compare(b.ConnectedAt), cmp.Compare(a.ID, b.ID))
	})
	return infos, nil
}

func (r record) info(id, channels string) Info {
	all, _ := parseChannels(channels)
	node := nodeOf(r.lease)
	return Info{
		ID:          id,
		Device:      r.details.Device,
		Client:      r.client,
		Node:        node.Name(),
		IP:          r.details.IP,
		ConnectedAt: r.connectedAt,
		Channels:    unlist(all),
		Owner:       Owner{node, id, r.generation},
	}
}

// Disconnect ends one session of a user, or all if sessionID is "", wherever
// they are, connected or left: none can be resumed, even if its node is dead.
// It returns the owners on live nodes of those that were connected. Each must
// be told to close its connection and to End the session; one that is not told
// writes it back with its next change. The reason is for whoever is told of
// those that no node holds.
func (r *Registry) Disconnect(ctx context.Context, user, sessionID, reason string) ([]Owner, error) {
	ended := newCall(disconnectScript, r.keys.user(user), sessionID)
	nodes := r.leasesCall()
	if err := r.run(ctx, ended, nodes); err != nil {
		return nil, fmt.Errorf("session: disconnect: %w", err)
	}
	seen, err := nodes.leases()
	if err != nil {
		return nil, fmt.Errorf("session: read leases: %w", err)
	}
	answer, err := ended.answer.Slice()
	if err != nil {
		return nil, fmt.Errorf("session: disconnect: %w", err)
	}
	var owners []Owner
	var orphans []*call
	for _, one := range answer {
		row, _ := one.([]any)
		f := texts(row)
		if len(f) != 5 {
			return nil, fmt.Errorf("session: disconnect: %w", errAnswer)
		}
		generation, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("session: disconnect: %w: %w", errAnswer, err)
		}
		node := nodeOf(f[2])
		if f[3] == "1" && seen.running(f[2]) {
			owners = append(owners, Owner{node, f[0], generation})
			continue
		}
		channels, _ := parseChannels(f[4])
		orphans = append(orphans, r.goneCall(f[0], 0,
			told{user, node.Name(), reason, json.RawMessage(channels)}))
	}
	if err := r.noteOrphans(ctx, orphans); err != nil {
		return nil, fmt.Errorf("session: disconnect: %w", err)
	}
	return owners, nil
}

// noteOrphans notes sessions that are over and that no node holds.
func (r *Registry) noteOrphans(ctx context.Context, calls []*call) error {
	if len(calls) == 0 || !r.tells() {
		return nil
	}
	return r.run(ctx, calls...)
}
