package redistest

import (
	"context"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"
)

func TestRestartKeepsPortAndAppendOnlyData(t *testing.T) {
	s := Start(t, "--appendonly", "yes", "--appendfsync", "always")
	addr := s.Addr()
	s.CLI("SET", "k", "v")

	s.Kill()
	if s.Client(t).Ping(t.Context()).Err() == nil {
		t.Fatal("a killed server answers")
	}
	s.Restart()

	if s.Addr() != addr {
		t.Errorf("restarted on %s, was on %s", s.Addr(), addr)
	}
	if got := s.CLI("GET", "k"); got != "v" {
		t.Errorf("GET after restart = %q, want v", got)
	}
}

func TestRestartForgetsByDefault(t *testing.T) {
	s := Start(t)
	s.CLI("SET", "k", "v")
	s.Stop()
	s.Restart()
	if got := s.CLI("GET", "k"); got != "" {
		t.Errorf("GET after restart = %q, want nothing", got)
	}
}

func TestPausedServerAnswersOnlyAfterResume(t *testing.T) {
	s := Start(t)
	client := s.Client(t)
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := client.Ping(ctx).Err(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("PING to a paused server: %v, want a timeout", err)
	}
	s.Resume()
	if got := s.CLI("PING"); got != "PONG" {
		t.Errorf("PING after resume = %q", got)
	}
	s.Pause()
	s.Stop()
}

func TestKillPubSubClosesSubscribers(t *testing.T) {
	s := Start(t)
	sub := s.Client(t).Subscribe(t.Context(), "c")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.KillPubSub(); n != 1 {
		t.Errorf("closed %d subscribers, want 1", n)
	}
	if n := s.KillPubSub(); n != 0 {
		t.Errorf("closed %d subscribers, want none left", n)
	}
}

func TestCLIPrintsOneElementPerLine(t *testing.T) {
	s := Start(t)
	s.CLI("RPUSH", "l", "a", "b")
	if got := s.CLI("LRANGE", "l", "0", "-1"); got != "a\nb" {
		t.Errorf("LRANGE = %q", got)
	}
}

func TestTakenPortIsReplaced(t *testing.T) {
	taken, calls := Start(t).port, 0
	dir := t.TempDir()
	s := launch(t, dir, func(port int) []string {
		if calls++; calls == 1 {
			port = taken
		}
		return []string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir}
	})
	if got := s.CLI("PING"); got != "PONG" || calls != 2 {
		t.Errorf("PING = %q after %d attempts, want PONG after 2", got, calls)
	}
}

func TestMissingBinaryNamesTheRemedy(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := startProcess(t.TempDir()+"/log", nil); !errors.Is(err, errMissing) {
		t.Errorf("got %v, want %v", err, errMissing)
	}
}
