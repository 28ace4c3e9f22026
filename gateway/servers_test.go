package gateway

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// pipes is a listener on which connections come that are pipes in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// gatewayOfTest returns a gateway that is there for its HTTP servers alone.
func gatewayOfTest(t *testing.T) *Gateway {
	t.Helper()
	cfg := DefaultConfig()
	cfg.NodeName, cfg.JWTSecret, cfg.APIKey, cfg.Pprof = "a", strings.Repeat("s", 32), strings.Repeat("k", 20), true
	g, err := New(cfg, Deps{Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.end)
	return g
}

// TestSlowClientsOfHTTPAreNotWaitedFor: a request that does not come to its end,
// and an answer that nobody reads, hold nothing for long (finding H4).
func TestSlowClientsOfHTTPAreNotWaitedFor(t *testing.T) {
	const (
		key     = "Authorization: Bearer kkkkkkkkkkkkkkkkkkkk\r\n"
		publish = "POST /v1/publish HTTP/1.1\r\nHost: a\r\n" + key
	)
	for _, c := range []struct {
		name, sent  string
		admin, read bool
		within      time.Duration
	}{
		{"nothing", "", false, true, 10 * time.Second},
		{"half a header", "GET /ws HTTP/1.1\r\nHost: a\r\n", false, true, 10 * time.Second},
		{"answers nobody reads", strings.Repeat("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 3), false, false, publicWrite},
		{"admin: nothing", "", true, true, 10 * time.Second},
		{"admin: half a header", "GET /metrics HTTP/1.1\r\nHo", true, true, 10 * time.Second},
		{"admin: body that does not come", publish + "Content-Length: 1000\r\n\r\n", true, true, adminRead},
		{"admin: body that does not end", publish + "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", true, true, adminRead},
		{"admin: continue", publish + "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n", true, true, adminRead},
		{"admin: body of a call without one", "GET /v1/nodes/x HTTP/1.1\r\nHost: a\r\n" + key + "Content-Length: 9\r\n\r\n", true, true, adminRead},
		{"admin: answers nobody reads", strings.Repeat("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 3), true, false, adminWrite},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := gatewayOfTest(t)
				s := g.publicServer()
				if c.admin {
					s = g.adminServer()
				}
				client, stop := serveOne(s)
				defer stop()
				start := time.Now()
				go func() { _, _ = io.WriteString(client, c.sent) }()
				if c.read {
					_, _ = io.Copy(io.Discard, client) // until the server closes
				} else if err := awaitClosed(client); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took > c.within+time.Second {
					t.Errorf("held for %v", took)
				}
			})
		})
	}
}

// TestAProfileOfAMinute: what takes long because it was asked to is not cut off
// (finding H4).
func TestAProfileOfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gatewayOfTest(t)
		client, stop := serveOne(g.adminServer())
		defer stop()
		start := time.Now()
		go func() { _, _ = io.WriteString(client, "GET /debug/pprof/mutex?seconds=60 HTTP/1.0\r\n\r\n") }()
		answer, err := io.ReadAll(client)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 200 ") {
			t.Errorf("%.200q: %v", answer, err)
		}
		if took := time.Since(start); took < time.Minute {
			t.Errorf("over after %v", took)
		}
	})
}

// serveOne has a server serve one connection, and returns its other end. stop
// waits until nothing is left of it.
func serveOne(s *http.Server) (client net.Conn, stop func()) {
	ln := make(pipes, 1)
	client, server := net.Pipe()
	ln <- server
	over := make(chan struct{})
	go func() { _ = s.Serve(ln); close(over) }()
	return client, func() {
		client.Close()
		close(ln)
		<-over
		s.Close()
	}
}

// awaitClosed waits until a server has closed the connection of a client that
// reads nothing.
func awaitClosed(client net.Conn) error {
	for range 120 {
		_ = client.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := client.Write(nil); errors.Is(err, io.ErrClosedPipe) {
			return nil
		}
		<-time.After(time.Second)
	}
	return errors.New("the connection does not end")
}
