package session

import (
	"cmp"
	"context"
	"fmt"
	"slices"
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
		if err != nil {
			r.foundStrange("sessions", user, f[0])
			continue
		}
		if !seen.running(rec.lease) {
			continue // of a dead node
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
