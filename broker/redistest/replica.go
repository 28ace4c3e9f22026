package redistest

import (
	"net"
	"strings"
	"testing"
)

// StartReplica starts a replica of the server of and returns when it has
// synchronised. A Restart makes it a replica of that server again.
func StartReplica(t testing.TB, of *Server) *Server {
	t.Helper()
	return StartReplicaOf(t, of.Addr())
}

// StartReplicaOf is StartReplica of the server that is reached at addr.
func StartReplicaOf(t testing.TB, addr string) *Server {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	s := Start(t, "--replicaof", host+" "+port)
	await(t, "replica "+s.Addr()+" is in step", func() bool {
		info, err := s.do("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	return s
}

// Detach cuts a replica loose: it answers everything, PING included, and gets
// nothing of what is published on its former master.
func (s *Server) Detach() {
	s.t.Helper()
	s.CLI("REPLICAOF", "NO", "ONE")
}

// IsMaster reports whether a server that runs takes itself for a master.
func (s *Server) IsMaster() bool {
	info, err := s.do("INFO", "replication")
	return err == nil && strings.Contains(info, "role:master")
}
