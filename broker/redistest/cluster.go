package redistest

import (
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Cluster is a Redis Cluster of masters, without replicas but those that are added.
type Cluster struct {
	// Nodes are the masters, in the order in which the slots are dealt out.
	Nodes []*Server
}

// StartCluster starts a Cluster of the given number of masters, at least 3,
// and returns when all of them call it complete. A node that is lost is
// noticed by the others after 2 s.
func StartCluster(t testing.TB, nodes int) *Cluster {
	t.Helper()
	c := &Cluster{}
	for range nodes {
		c.Nodes = append(c.Nodes, startClusterNode(t))
	}
	create(t, c.addrs())
	for _, node := range c.Nodes {
		await(t, node.Addr()+" calls the cluster complete", func() bool {
			info, err := node.do("CLUSTER", "INFO")
			return err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, "cluster_known_nodes:"+strconv.Itoa(nodes))
		})
	}
	return c
}

func startClusterNode(t testing.TB) *Server {
	t.Helper()
	return Start(t,
		"--cluster-enabled", "yes",
		"--cluster-config-file", "nodes.conf",
		"--cluster-node-timeout", "2000")
}

// StartReplica adds a replica of one of the masters and returns when it has
// synchronised and every master knows it, so that it can take over.
func (c *Cluster) StartReplica(t testing.TB, of *Server) *Server {
	t.Helper()
	s := startClusterNode(t)
	id, master := s.CLI("CLUSTER", "MYID"), of.CLI("CLUSTER", "MYID")
	host, port, _ := net.SplitHostPort(of.Addr())
	s.CLI("CLUSTER", "MEET", host, port)
	await(t, s.Addr()+" knows its master", func() bool {
		_, err := s.do("CLUSTER", "REPLICATE", master)
		return err == nil
	})
	await(t, s.Addr()+" is in step", func() bool {
		info, err := s.do("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	for _, node := range c.Nodes {
		await(t, node.Addr()+" knows the replica", func() bool {
			nodes, err := node.do("CLUSTER", "NODES")
			return err == nil && knowsReplica(nodes, id, master)
		})
	}
	return s
}

// knowsReplica reports whether the answer to CLUSTER NODES has id as a replica of
// master.
func knowsReplica(nodes, id, master string) bool {
	for line := range strings.Lines(nodes) {
		if strings.HasPrefix(line, id) {
			return strings.Contains(line, "slave "+master) && strings.Contains(line, " connected")
		}
	}
	return false
}

// create joins the servers at addrs and deals out the slots.
func create(t testing.TB, addrs []string) {
	t.Helper()
	bin, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Fatalf("redistest: %v", errMissing)
	}
	args := append([]string{"--cluster", "create"}, addrs...)
	args = append(args, "--cluster-replicas", "0", "--cluster-yes")
	if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
		t.Fatalf("redistest: redis-cli --cluster create: %v\n%s", err, out)
	}
}

// URL is the Cluster's address as the gateway's configuration takes it.
func (c *Cluster) URL() string { return "redis+cluster://" + strings.Join(c.addrs(), ",") }

// Client returns a client of the whole Cluster, closed when the test ends. It
// follows redirections, and what does that also tries another node when one
// does not answer.
func (c *Cluster) Client(t testing.TB) redis.UniversalClient {
	t.Helper()
	opts := options(c.addrs()...)
	opts.IsClusterMode = true
	return newClient(t, opts)
}

func (c *Cluster) addrs() []string { return addrs(c.Nodes) }

// addrs lists where the servers listen.
func addrs(servers []*Server) []string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr()
	}
	return list
}
