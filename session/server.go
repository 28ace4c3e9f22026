package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// serverOf names the server of a Cluster that has a key, as far as its client knows. Of
// any other Redis it is "": one server has every key. What is sent together is for one
// server, as a pipeline over several takes as long as the slowest of them.
func (r *Registry) serverOf(ctx context.Context, key string) string {
	cluster, ok := r.rdb.(*redis.ClusterClient)
	if !ok {
		return ""
	}
	master, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return "" // of a server that is not known: the command will say why
	}
	return master.Options().Addr
}

// serverOfUser returns the server that has the sessions of a user.
func (r *Registry) serverOfUser(ctx context.Context, user string) string {
	if _, ok := r.rdb.(*redis.ClusterClient); !ok {
		return ""
	}
	return r.serverOf(ctx, r.keys.sessions(user))
}

// hasIndex reports whether a server has the index of a lease.
func (r *Registry) hasIndex(ctx context.Context, server, lease string) bool {
	return r.serverOf(ctx, r.keys.index(lease)) == server
}

// indexPatience is how long sessions on one server wait for the index of their lease on
// another one.
const indexPatience = 250 * time.Millisecond

var errIndexAway = errors.New("its server did not answer")

// addToIndex adds entries of sessions on a server to the index of a lease. An index on
// another server holds them up only for a moment, and that not all the time.
func (r *Registry) addToIndex(ctx context.Context, server, lease string, entries []any) error {
	elsewhere := !r.hasIndex(ctx, server, lease)
	if elsewhere {
		if !r.tryIndex() {
			return fmt.Errorf("add to index: %w", errIndexAway)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, indexPatience)
		defer cancel()
	}
	if err := r.rdb.SAdd(ctx, r.keys.index(lease), entries...).Err(); err != nil {
		if elsewhere {
			r.spareIndex()
		}
		return fmt.Errorf("add to index: %w", err)
	}
	return nil
}

// tryIndex reports whether an index on another server is to be waited for.
func (r *Registry) tryIndex() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !time.Now().Before(r.indexRetry)
}

// spareIndex notes that an index on another server has failed.
func (r *Registry) spareIndex() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.indexRetry = time.Now().Add(backoffLast)
}
