package redistest

import (
	"context"
	"net"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Embedded starts a Redis inside the test on a TCP port; keys expire by the
// clock, as in a real one.
func Embedded(t testing.TB) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.RunT(t)
	m.ClockTTL(true)
	return m
}

// InMemory starts a Redis inside the test without any port, for a
// testing/synctest bubble, whose fake clock its keys expire by. Only
// EmbeddedClient reaches it.
func InMemory(t testing.TB) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.NewMiniRedis()
	t.Cleanup(m.Close)
	m.ClockTTL(true)
	return m
}

// EmbeddedClient returns a client of m, closed when the test ends; it never
// touches the network.
func EmbeddedClient(t testing.TB, m *miniredis.Miniredis) redis.UniversalClient {
	t.Helper()
	opts := options("embedded:0")
	opts.Dialer = func(context.Context, string, string) (net.Conn, error) { return m.Dial() }
	return newClient(t, opts)
}
