package main

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"wssgateway/broker/redistest"
)

// refusing is a way in which a Redis that answers refuses what a node needs.
type refusing struct {
	code           string
	refuse, accept func(*testing.T, *redistest.Server)
	ready          bool // pub/sub delivers all the same
}

// cli runs a command of the server's operator.
func cli(args ...string) func(*testing.T, *redistest.Server) {
	return func(_ *testing.T, s *redistest.Server) { s.CLI(args...) }
}

var refusingServers = map[string]refusing{
	"full":      {"OOM", cli("config", "set", "maxmemory", "1"), cli("config", "set", "maxmemory", "0"), true},
	"a replica": {"READONLY", cli("replicaof", "127.0.0.1", "1"), cli("replicaof", "no", "one"), true},
	"a replica is missing": {
		"NOREPLICAS", cli("config", "set", "min-replicas-to-write", "1"), cli("config", "set", "min-replicas-to-write", "0"), true,
	},
	"its disk has failed": {"MISCONF", loseDisk, cli("config", "set", "save", ""), true},
	"a key of another type": {
		"WRONGTYPE", func(_ *testing.T, s *redistest.Server) {
			s.CLI("eval", `redis.call("rename", KEYS[1], "kept") redis.call("hset", KEYS[1], "a", "b")`, "1", "gw:{0}:epoch")
		}, cli("rename", "kept", "gw:{0}:epoch"), true,
	},
	"the user may not": {"NOPERM", cli("acl", "setuser", "default", "-evalsha", "-eval"), cli("acl", "setuser", "default", "+@all"), true},
	"the user may nothing": {
		"NOPERM", cli("acl", "setuser", "default", "-@all", "+acl"), cli("acl", "setuser", "default", "+@all"), false,
	},
	"no channels for the user": {
		"NOPERM", cli("acl", "setuser", "default", "resetchannels"), cli("acl", "setuser", "default", "allchannels"), false,
	},
}

var refusedSome = regexp.MustCompile(`gateway_redis_refusals_total\{.*\} [1-9]`)

// loseDisk has Redis fail to save.
func loseDisk(t *testing.T, s *redistest.Server) {
	dir := strings.SplitN(s.CLI("config", "get", "dir"), "\n", 2)[1]
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s.CLI("config", "set", "save", "3600 1000000")
	s.CLI("bgsave")
}

// TestANodeSaysThatRedisRefuses: in Redis's words, once a minute at the most, and in a
// metric; by itself all is well when Redis is.
func TestANodeSaysThatRedisRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range refusingServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, "--dir", t.TempDir())
			p := startProgram(t, []string{"GATEWAY_REDIS=" + s.URL()})
			p.awaitReady(t)
			p.awaitPost(t, http.StatusOK)
			frozenClient(t, p.public, nil)
			if metrics := get(t, "http://"+p.admin+"/metrics"); refusedSome.MatchString(metrics) {
				t.Errorf("refused before: %s", refusedSome.FindString(metrics))
			}
			test.refuse(t, s)
			said := p.await(t, test.code+" ")
			p.awaitPost(t, http.StatusServiceUnavailable)
			if !strings.Contains(said, `"level":"WARN","msg":"redis `) {
				t.Errorf("said %s", said)
			}
			if test.code == "WRONGTYPE" && !strings.Contains(said, `"keys":["gw:{0}:`) {
				t.Errorf("does not say where to look: %s", said)
			}
			metric := fmt.Sprintf("\ngateway_redis_refusals_total{code=%q} ", test.code)
			if metrics := get(t, "http://"+p.admin+"/metrics"); !strings.Contains(metrics, metric) || strings.Contains(metrics, metric+"0\n") {
				t.Errorf("not in the metrics: %s", metric)
			}
			if test.ready {
				if answer := get(t, "http://"+p.public+"/readyz"); answer != "ready\n" {
					t.Errorf("/readyz says %q", answer)
				}
			} else {
				p.awaitNotReady(t)
			}
			test.accept(t, s)
			p.awaitPost(t, http.StatusOK)
			p.awaitReady(t)
			p.stop(t)
			if all := strings.Join(p.said, "\n"); strings.Count(all, `"msg":"redis refuses `) != 1 {
				t.Errorf("log:\n%s", all)
			}
		})
	}
}

// awaitPost publishes until it is answered with a status.
func (p *program) awaitPost(t *testing.T, want int) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond) // between two attempts
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		status, err := post(t, p.admin)
		if err == nil && status == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("publish: %d, %v; want %d", status, err, want)
		}
	}
}

func (p *program) awaitNotReady(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond) // between two looks
	defer tick.Stop()
	for deadline := time.Now().Add(patience); askHealth(t.Context(), "http://"+p.admin+"/readyz") == nil; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the node is ready")
		}
	}
}
