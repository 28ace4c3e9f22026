package gateway_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// TestRedisThatRefuses answers, and takes no publishes for a while, nor leases: that is
// told, connections stay, and what was refused and is repeated comes once.
func TestRedisThatRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		refuse, accept func(*testing.T, *redistest.Server)
	}{
		"full":      {as("", "CONFIG SET maxmemory 1"), as("", "CONFIG SET maxmemory 0")},
		"a replica": {as("", "REPLICAOF 127.0.0.1 1"), as("", "REPLICAOF NO ONE")}, // of nobody: it keeps its data
		"its disk has failed": {
			loseDisk, func(_ *testing.T, s *redistest.Server) { s.CLI("CONFIG", "SET", "save", "") },
		},
		"may not write":   {as("", "ACL SETUSER default -@write"), as("", "ACL SETUSER default +@all")},
		"may nothing":     {as("", "ACL SETUSER default -@all +acl"), as("", "ACL SETUSER default +@all")},
		"may not publish": {as("", "ACL SETUSER default resetchannels"), as("", "ACL SETUSER default allchannels")},
		"a password is needed": {
			as("", "CONFIG SET requirepass x", "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub"),
			as("x", "ACL SETUSER default nopass"),
		},
		"a key of another type": {
			as("", "RENAME gw:{0}:epoch kept", "HSET gw:{0}:epoch a b"), as("", "RENAME kept gw:{0}:epoch"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, "--dir", t.TempDir())
			short := func(cfg *gateway.Config) { cfg.Lease, cfg.Heartbeat = time.Second, 300*time.Millisecond }
			a := startNode(t, "a", dialRedis(t, s.Addr()), deep, short)
			b := startNode(t, "b", dialRedis(t, s.Addr()), deep, short)
			p, followers := followed(t, a, b)
			client, _ := a.connect(t, "erin", "channel=deep:2")
			test.refuse(t, s)
			p.awaitRefused(t, 1)
			for start := time.Now(); time.Since(start) < 2*time.Second; { // longer than a lease
				p.awaitRefused(t, 1)
			}
			client.send(`{"type":"publish","ref":1,"channel":"deep:2","data":1,"key":"k"}`)
			client.expectError("unavailable")
			status, answer := b.call(t, "POST", "/v1/publish", `{"channel":"deep:3","data":1}`)
			if problem, _ := answer.(map[string]any); status != http.StatusServiceUnavailable || problem["code"] != "unavailable" {
				t.Errorf("publish: %d %v", status, answer)
			}
			test.accept(t, s)
			start := time.Now()
			p.awaitMore(t, 20)
			recovered(t, start, "Redis had refused: "+name)
			client.send(`{"type":"publish","ref":2,"channel":"deep:2","data":1,"key":"k"}`)
			client.expectOwn()
			client.quiet()
			awaitFollowers(t, p.stop(), followers...)
			for _, f := range followers {
				f.check(false)
				f.checkEnd(stored(t, dialRedis(t, s.Addr()), "deep:1"))
			}
			await(t, func() error {
				_, answer := b.call(t, "GET", "/v1/users/erin", "")
				if sessions, _ := answer.(map[string]any)["sessions"].([]any); len(sessions) != 1 {
					return fmt.Errorf("%v", answer)
				}
				return nil
			})
			if slowest := time.Duration(p.slowest.Load()); slowest > 5*time.Second {
				t.Errorf("a publish was answered after %v", slowest)
			}
		})
	}
}

// as returns what has an operator with a password run commands, with nobody in between.
func as(password string, commands ...string) func(*testing.T, *redistest.Server) {
	return func(t *testing.T, s *redistest.Server) {
		operator := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: password, Protocol: 2, DisableIdentity: true})
		defer operator.Close()
		pipe := operator.Pipeline()
		if len(commands) > 1 { // a server that refuses may refuse these, too
			pipe = operator.TxPipeline()
		}
		for _, command := range commands {
			var args []any
			for arg := range strings.FieldsSeq(command) {
				args = append(args, arg)
			}
			pipe.Do(t.Context(), args...)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// loseDisk has Redis fail to save its data.
func loseDisk(t *testing.T, s *redistest.Server) {
	t.Helper()
	dir, err := s.Client(t).ConfigGet(t.Context(), "dir").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir["dir"]); err != nil {
		t.Fatal(err)
	}
	s.CLI("CONFIG", "SET", "save", "3600 1000000")
	s.CLI("BGSAVE")
}
