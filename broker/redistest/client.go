package redistest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// options are those of every client here: nothing is retried, so that a test
// sees each failure, and nothing but the test's own commands is sent.
func options(addrs ...string) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:                    addrs,
		Protocol:                 2,
		MaxRetries:               -1,
		DialerRetries:            1,
		DisableIdentity:          true,
		ContextTimeoutEnabled:    true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// newClient returns a client that is closed when the test ends.
func newClient(t testing.TB, opts *redis.UniversalOptions) redis.UniversalClient {
	t.Helper()
	client := redis.NewUniversalClient(opts)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Client returns a client of the server, closed when the test ends. It
// retries nothing: after a Kill and Restart each of its idle connections
// fails once.
func (s *Server) Client(t testing.TB) redis.UniversalClient {
	t.Helper()
	return newClient(t, options(s.Addr()))
}

// CLI runs one command and returns its answer as redis-cli prints it to a
// pipe: elements one per line, nil as an empty line.
func (s *Server) CLI(args ...string) string {
	s.t.Helper()
	answer, err := s.do(args...)
	if err != nil {
		s.t.Fatalf("redistest: %s: %s: %v", s.Addr(), strings.Join(args, " "), err)
	}
	return answer
}

// KillPubSub closes every pub/sub connection of the server and returns how
// many there were.
func (s *Server) KillPubSub() int {
	s.t.Helper()
	client := redis.NewUniversalClient(options(s.Addr()))
	defer client.Close()
	n, err := client.Do(context.Background(), "CLIENT", "KILL", "TYPE", "pubsub").Int()
	if err != nil {
		s.t.Fatalf("redistest: %s: CLIENT KILL TYPE pubsub: %v", s.Addr(), err)
	}
	return n
}

// do runs one command on a connection of its own.
func (s *Server) do(args ...string) (string, error) {
	client := redis.NewUniversalClient(options(s.Addr()))
	defer client.Close()
	command := make([]any, len(args))
	for i, arg := range args {
		command[i] = arg
	}
	answer, err := client.Do(context.Background(), command...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", err
	}
	return format(answer), nil
}

// format prints an answer, its elements one per line.
func format(answer any) string {
	switch answer := answer.(type) {
	case nil:
		return ""
	case []any:
		lines := make([]string, len(answer))
		for i, element := range answer {
			lines[i] = format(element)
		}
		return strings.Join(lines, "\n")
	default:
		return fmt.Sprint(answer)
	}
}
