package redistest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports are taken below the range from which systems choose the local port of
// outgoing connections: there, a client that redials a server which is down
// could be given the server's own port, and Restart would find it taken.
const (
	firstPort = 10_000
	lastPort  = 20_000
	// busOffset is how far above its port a Cluster node opens the second
	// one, for the other nodes.
	busOffset = 10_000
)

// freePort returns a port that nobody listened on a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if isFree(port) && isFree(port+busOffset) {
			return port
		}
	}
	t.Fatalf("redistest: no free port between %d and %d", firstPort, lastPort)
	return 0
}

func isFree(port int) bool {
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}
