package broker

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// misplaced are the answers of servers that do not serve a key, or no longer.
var misplaced = []string{"MOVED", "CLUSTERDOWN", "READONLY", "MASTERDOWN"}

// Misplaced reports whether an error may come from a server of a Cluster which no
// longer has the keys it was asked for: of a dead one nobody hears more than that
// it does not answer.
func Misplaced(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return err != nil && !errors.Is(err, context.Canceled) // by its caller
	}
	return slices.ContainsFunc(misplaced, func(code string) bool { return strings.HasPrefix(reply.Error(), code) })
}

// reloadTopology has the client of a Cluster ask anew who has which keys, if an
// error says that this may have changed; by itself it asks once a minute. It
// returns at once, and the client asks a few times a second at the most.
func reloadTopology(ctx context.Context, rdb redis.UniversalClient, err error) {
	if cluster, ok := rdb.(*redis.ClusterClient); ok && Misplaced(err) {
		cluster.ReloadState(ctx)
	}
}

// masterOf returns a client of the one server that has a key.
func masterOf(ctx context.Context, rdb redis.UniversalClient, key string) (redis.UniversalClient, error) {
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return rdb, nil
}
