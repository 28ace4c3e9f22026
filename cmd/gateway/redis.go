package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"wssgateway/broker"
)

// redisPoolSize is the number of connections to one Redis server. Commands are
// short and pipelined and Redis runs one at a time, so a few dozen in flight
// keep it busy over any sensible link; a few more are held by blocking reads.
// It is not counted by processors, as the round trip is what is waited for.
const redisPoolSize = 32

// newRedis returns a client of the Redis that options describe. It does not
// connect: a Redis that is down at the start is waited for like any other.
func newRedis(options *redis.UniversalOptions) redis.UniversalClient {
	// A command whose answer was lost may have been carried out: sent again by
	// the client, a publish would be stored twice.
	options.MaxRetries = -1
	// One attempt of DialTimeout, not five: what waits for Redis retries itself.
	options.DialerRetries = 1
	options.DialTimeout = 2 * time.Second
	options.ReadTimeout = 3 * time.Second
	options.WriteTimeout = 3 * time.Second
	options.ContextTimeoutEnabled = true
	options.PoolSize = redisPoolSize
	// Nothing is sent on connecting that old servers and proxies refuse.
	options.Protocol = 2
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewUniversalClient(options)
	client.AddHook(failTogether{})
	if cluster, ok := client.(*redis.ClusterClient); ok {
		cluster.AddHook(clusterHook{cluster})
	}
	return client
}

// clusterHook stands between the Cluster client and its users. It keeps the client
// from sending a command again after its answer was lost, which it does without
// asking MaxRetries, up to three times. Redirects, after which the command was
// certainly not carried out, are still followed. And it has the client ask for the
// layout when a server does not answer, as its replica may have taken over.
type clusterHook struct{ cluster *redis.ClusterClient }

func (clusterHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h clusterHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, onceOnly(cmd))
		h.reload(ctx, err)
		return err
	}
}

func (h clusterHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		once := make([]redis.Cmder, len(cmds))
		for i, cmd := range cmds {
			once[i] = onceOnly(cmd)
		}
		err := next(ctx, once)
		for _, cmd := range cmds {
			h.reload(ctx, cmd.Err())
		}
		return err
	}
}

func (h clusterHook) reload(ctx context.Context, err error) {
	if broker.Misplaced(err) {
		h.cluster.ReloadState(ctx)
	}
}

// onceCmd is a command that is not sent again; its result is the command's own.
type onceCmd struct{ redis.Cmder }

func (onceCmd) NoRetry() bool { return true }

// onceOnly marks the commands that must not be carried out twice. Others stay
// as they are, since the client looks at the types of some.
func onceOnly(cmd redis.Cmder) redis.Cmder {
	switch cmd.Name() {
	case "eval", "evalsha", "fcall", "xadd", "publish", "spublish":
		return onceCmd{cmd}
	}
	return cmd
}

// redisLogger passes the client's own messages on. They are about single
// connections, and what matters of them comes back as errors: debug.
type redisLogger struct{ *slog.Logger }

func (l redisLogger) Printf(ctx context.Context, format string, args ...any) {
	if l.Enabled(ctx, slog.LevelDebug) {
		l.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, args...))
	}
}

// redisSchemes says what the kinds of Redis URLs have in common.
var redisSchemes = map[string]struct {
	port string // default; none for a socket
	tls  bool
	many bool // a list of hosts
}{
	"redis":           {port: "6379"},
	"rediss":          {port: "6379", tls: true},
	"unix":            {},
	"redis+sentinel":  {port: "26379", many: true},
	"rediss+sentinel": {port: "26379", many: true, tls: true},
	"redis+cluster":   {port: "6379", many: true},
	"rediss+cluster":  {port: "6379", many: true, tls: true},
}

// redisAddrs completes a comma-separated list of hosts with the default port.
func redisAddrs(hosts, port string) ([]string, error) {
	var addrs []string
	for host := range strings.SplitSeq(hosts, ",") {
		addr, err := redisAddr(host, port)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func redisAddr(host, port string) (string, error) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	} else if strings.Contains(host, ":") {
		return "", errRedisHost
	}
	if host == "" || strings.ContainsAny(host, " \t\r\n#[]") || !isPort(port) {
		return "", errRedisHost
	}
	return net.JoinHostPort(host, port), nil
}

func redisTLS(skipVerify bool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skipVerify}
}
