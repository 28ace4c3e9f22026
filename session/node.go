package session

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NodeID names one life of a node: "<name>|<start>-<random>". A node that comes
// back under its name has another one.
type NodeID string

func newNodeID(name string, start time.Time) NodeID {
	return NodeID(fmt.Sprintf("%s|%d-%08x", name, start.UnixMilli(), rand.Uint32()))
}

// Name returns the name of the node.
func (id NodeID) Name() string {
	i := strings.LastIndexByte(string(id), '|')
	return string(id[:max(i, 0)])
}

// lease names the nth lease of a node. The name of the node may have any of the
// separators, what comes after it has none.
func (id NodeID) lease(n int) string { return string(id) + "." + strconv.Itoa(n) }

// nodeOf returns the node that a lease belongs to.
func nodeOf(lease string) NodeID {
	i := strings.LastIndexByte(lease, '.')
	return NodeID(lease[:max(i, 0)])
}

// numberOf returns which of its node's leases it is.
func numberOf(lease string) int {
	n, _ := strconv.Atoi(lease[strings.LastIndexByte(lease, '.')+1:])
	return n
}

// NodeInfo describes a node as of its last heartbeat.
type NodeInfo struct {
	Name        string    `json:"-"`
	Node        NodeID    `json:"-"`
	Connections int       `json:"connections"`
	Channels    int       `json:"channels"`
	Version     string    `json:"version"`
	StartedAt   time.Time `json:"started_at"`
	Draining    bool      `json:"draining"`
}

// info describes this node, encoded.
func (r *Registry) info() string {
	stats := r.cfg.Stats()
	b, err := json.Marshal(NodeInfo{
		Connections: stats.Connections,
		Channels:    stats.Channels,
		Version:     r.cfg.Version,
		StartedAt:   r.started,
		Draining:    stats.Draining,
	})
	if err != nil {
		panic(err) // plain fields always encode
	}
	return string(b)
}

// Nodes returns the nodes whose lease is running, in the order of their names.
// It asks Redis.
func (r *Registry) Nodes(ctx context.Context) ([]NodeInfo, error) {
	c := r.leasesCall()
	if err := r.run(ctx, c); err != nil {
		return nil, fmt.Errorf("session: read nodes: %w", err)
	}
	seen, err := c.leases()
	if err != nil {
		return nil, fmt.Errorf("session: read nodes: %w", err)
	}
	newest := make(map[NodeID]string) // a node that has taken another lease may have two
	for lease := range seen.ends {
		id := nodeOf(lease)
		if seen.running(lease) && seen.ends[lease] > seen.ends[newest[id]] {
			newest[id] = lease
		}
	}
	var nodes []NodeInfo
	for _, lease := range newest {
		n := NodeInfo{}
		// What another version wrote may not decode: the node is listed anyway.
		_ = json.Unmarshal([]byte(seen.info[lease]), &n)
		n.Node = nodeOf(lease)
		n.Name = n.Node.Name()
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b NodeInfo) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return nodes, nil
}
