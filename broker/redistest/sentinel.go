package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const (
	// masterSet is the name under which the Sentinels know the master.
	masterSet = "master"
	sentinels = 3
	quorum    = 2
)

// sentinelConfig is what a Sentinel reads at its start and writes to later.
const sentinelConfig = `
sentinel monitor %[1]s 127.0.0.1 %[2]d %[3]d
sentinel down-after-milliseconds %[1]s 1000
sentinel failover-timeout %[1]s 3000
`

// Sentinel is a master and a replica watched by three Sentinels, two of which
// decide. They call a server down after one second of silence.
type Sentinel struct {
	t testing.TB
	// Servers are the data servers; the first was the master at the start.
	Servers []*Server
	// Sentinels are the watchers; they store nothing.
	Sentinels []*Server
}

// StartSentinel starts the set and returns when every Sentinel knows the
// others and the replica, so that a failover can begin at once.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	master := Start(t)
	s := &Sentinel{t: t, Servers: []*Server{master, StartReplica(t, master)}}
	for range sentinels {
		s.Sentinels = append(s.Sentinels, startWatcher(t, master))
	}
	for _, watcher := range s.Sentinels {
		await(t, "sentinel "+watcher.Addr()+" knows the others", func() bool {
			return knowsAll(watcher)
		})
	}
	return s
}

// startWatcher starts one Sentinel, with a configuration file of its own as
// it keeps what it learns in it.
func startWatcher(t testing.TB, master *Server) *Server {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf(sentinelConfig, masterSet, master.port, quorum)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return launch(t, dir, func(port int) []string {
		return []string{file, "--sentinel", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir}
	})
}

// knowsAll reports whether a Sentinel sees the other ones and a replica that
// it could promote.
func knowsAll(watcher *Server) bool {
	peers, err := watcher.do("SENTINEL", "SENTINELS", masterSet)
	if err != nil || strings.Count(peers, "runid") < sentinels-1 {
		return false
	}
	if verdict, err := watcher.do("SENTINEL", "CKQUORUM", masterSet); err != nil || !strings.HasPrefix(verdict, "OK") {
		return false
	}
	replicas, err := watcher.do("SENTINEL", "REPLICAS", masterSet)
	return err == nil && strings.Contains(replicas, "master-link-status\nok")
}

// URL is the set's address as the gateway's configuration takes it.
func (s *Sentinel) URL() string {
	return "redis+sentinel://" + strings.Join(addrs(s.Sentinels), ",") + "/" + masterSet
}

// Client returns a client that asks the Sentinels for the master, closed when
// the test ends. It retries nothing.
func (s *Sentinel) Client(t testing.TB) redis.UniversalClient {
	t.Helper()
	opts := options(addrs(s.Sentinels)...)
	opts.MasterName = masterSet
	return newClient(t, opts)
}

// Master returns the data server that most Sentinels now call the master. After
// the old one was killed that takes some seconds to change.
func (s *Sentinel) Master() *Server {
	s.t.Helper()
	for _, server := range s.Servers {
		if s.votes(server) >= quorum {
			return server
		}
	}
	s.t.Fatalf("redistest: the sentinels agree on no master")
	return nil
}

// votes counts the Sentinels that call the server the master.
func (s *Sentinel) votes(server *Server) int {
	votes := 0
	for _, watcher := range s.Sentinels {
		addr, err := watcher.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterSet)
		if err == nil && strings.ReplaceAll(addr, "\n", ":") == server.Addr() {
			votes++
		}
	}
	return votes
}
