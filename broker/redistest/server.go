// Package redistest starts real Redis servers for tests: a single one, one
// with a replica, a Cluster, a set watched by Sentinels, an embedded one, and
// a TCP proxy that makes the way to any of them slow, deaf or broken.
//
// Everything is on 127.0.0.1, keeps its data below t.TempDir and is gone when
// the test ends. Calls that fail end the test, so they belong on the test's
// own goroutine. A machine without redis-server fails the test; it does not
// skip it.
package redistest

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// startTimeout is generous because a CI machine may run several of these
	// at once with the race detector; a start takes about 20 ms otherwise.
	startTimeout = 20 * time.Second
	// stopTimeout is above the 10 s for which a master that is told to stop
	// waits for its replicas.
	stopTimeout = 15 * time.Second
	// startAttempts is how many ports are tried when another process takes
	// the one that was free a moment ago.
	startAttempts = 5
)

// Server is one redis-server process. Its methods may be called from several
// goroutines, those that fail the test only from the test's own.
type Server struct {
	t   testing.TB
	dir string
	// port stays the same over restarts.
	port int
	// argv are the arguments of redis-server for this port.
	argv []string

	mu   sync.Mutex
	proc *process // guarded by mu; replaced by Restart
}

// Start starts a redis-server on a free port and returns when it answers.
// Without args it keeps nothing on disk; args are options of redis-server
// ("--appendonly", "yes") and win over the defaults. It is killed when the
// test ends, and its log shown if the test failed.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	dir := t.TempDir()
	return launch(t, dir, func(port int) []string {
		return append([]string{
			"--port", strconv.Itoa(port),
			"--bind", "127.0.0.1",
			"--dir", dir,
			"--save", "",
			"--appendonly", "no",
			// The default makes every first synchronisation wait 5 s.
			"--repl-diskless-sync-delay", "0",
		}, args...)
	})
}

// launch starts a server in dir with the arguments that argv gives for a
// port, on another port if that one turns out to be taken.
func launch(t testing.TB, dir string, argv func(port int) []string) *Server {
	t.Helper()
	s := &Server{t: t, dir: dir}
	t.Cleanup(s.cleanup)
	var err error
	for range startAttempts {
		s.port = freePort(t)
		s.argv = argv(s.port)
		if err = s.run(); err == nil {
			return s
		}
		if !strings.Contains(err.Error(), "Failed listening on port") {
			break
		}
	}
	t.Fatalf("redistest: %v", err)
	return nil
}

// run starts the process and waits until it answers.
func (s *Server) run() error {
	proc, err := startProcess(filepath.Join(s.dir, "redis.log"), s.argv)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc = proc
	s.mu.Unlock()
	return s.awaitReady(proc)
}

// awaitReady returns when the process answers PING, or with its log if it
// ended instead.
func (s *Server) awaitReady(proc *process) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		if s.answers(ctx, proc.pid()) {
			return nil
		}
		select {
		case <-proc.exited:
			return fmt.Errorf("redis-server ended at its start:\n%s", proc.log())
		case <-ctx.Done():
			return fmt.Errorf("redis-server did not answer within %v:\n%s", startTimeout, proc.log())
		case <-time.After(pollInterval):
		}
	}
}

// answers reports whether the server on our port has loaded its data and is
// the process pid, not a stranger that took the port first.
func (s *Server) answers(ctx context.Context, pid int) bool {
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		return false // seen here, as the client would log it each time
	}
	_ = conn.Close()
	client := redis.NewUniversalClient(options(s.Addr()))
	defer client.Close()
	if client.Ping(ctx).Err() != nil {
		return false
	}
	info, err := client.Info(ctx, "server").Result()
	return err == nil && strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", pid))
}

// Addr is the server's host:port.
func (s *Server) Addr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
}

// URL is the server's address as the gateway's configuration takes it.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Kill ends the server at once, as a crash does, and waits until it is gone.
// Killing one that does not run does nothing.
func (s *Server) Kill() { s.current().kill() }

// Stop ends the server in good order, a paused one too, and waits until it is
// gone.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.current().stop(stopTimeout); err != nil {
		s.t.Fatalf("redistest: stop %s: %v", s.Addr(), err)
	}
}

// Restart starts the server again on the same port and directory and returns
// when it answers. One that still runs is killed first.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.run(); err != nil {
		s.t.Fatalf("redistest: restart: %v", err)
	}
}

// Pause freezes the server: its connections stay open and nothing is
// answered until Resume.
func (s *Server) Pause() {
	s.t.Helper()
	if err := s.current().pause(); err != nil {
		s.t.Fatalf("redistest: pause %s: %v", s.Addr(), err)
	}
}

// Resume lets a paused server go on.
func (s *Server) Resume() {
	s.t.Helper()
	if err := s.current().resume(); err != nil {
		s.t.Fatalf("redistest: resume %s: %v", s.Addr(), err)
	}
}

func (s *Server) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// cleanup kills the server and shows the log of a failed test.
func (s *Server) cleanup() {
	proc := s.current()
	if proc == nil {
		return
	}
	proc.kill()
	if s.t.Failed() {
		s.t.Logf("redis-server %s:\n%s", s.Addr(), proc.log())
	}
}
