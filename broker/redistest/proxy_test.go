package redistest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestLatencyDelaysWithoutSlowingThePipeline(t *testing.T) {
	const latency, commands = 20 * time.Millisecond, 500
	p := NewProxy(t, Start(t).Addr())
	client := newClient(t, options(p.Addr()))
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	p.SetLatency(latency)

	begin := time.Now()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 2*latency {
		t.Errorf("round trip took %v, want at least %v", took, 2*latency)
	}

	begin = time.Now()
	_, err := client.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
		for range commands {
			pipe.Incr(t.Context(), "n")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > commands*latency/4 {
		t.Errorf("%d pipelined commands took %v", commands, took)
	}
}

func TestLatencyKeepsOrder(t *testing.T) {
	p := NewProxy(t, echo(t))
	conn := dial(t, p)
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i / 251)
	}
	go func() {
		for i := 0; i < len(want); i += 1 << 14 {
			p.SetLatency(time.Duration(20-i>>16) * time.Millisecond) // shorter and shorter
			_, _ = conn.Write(want[i : i+1<<14])
		}
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("echo differs, %v", err)
	}
}

func TestBlackholeSwallowsAndKeepsConnectionsOpen(t *testing.T) {
	server := Start(t)
	p := NewProxy(t, server.Addr())
	old := dial(t, p)
	ask(t, old)

	p.Blackhole(true)
	fresh := dial(t, p)
	for name, conn := range map[string]net.Conn{"old": old, "fresh": fresh} {
		if err := silence(conn); err != nil {
			t.Errorf("%s connection in a black hole: %v", name, err)
		}
	}
	p.Blackhole(false)

	ask(t, old)
	if _, err := fresh.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
		t.Errorf("connection made in the black hole: %v, want it closed", err)
	}
	ask(t, dial(t, p))
}

func TestBlackholeHidesTheDeathOfTheServer(t *testing.T) {
	server := Start(t)
	p := NewProxy(t, server.Addr())
	conn := dial(t, p)
	ask(t, conn)
	p.Blackhole(true)
	server.Kill()
	if err := silence(conn); err != nil {
		t.Errorf("connection in a black hole: %v", err)
	}
	p.Blackhole(false)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
		t.Errorf("after the black hole: %v, want it closed", err)
	}
}

func TestCutClosesAndLetsNewOnesThrough(t *testing.T) {
	first, second := Start(t), Start(t)
	p := NewProxy(t, first.Addr())
	conn := dial(t, p)
	ask(t, conn)

	p.SetTarget(second.Addr())
	ask(t, conn)
	p.Cut()
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read after Cut: %v, want it closed", err)
	}

	second.CLI("SET", "name", "second")
	client := newClient(t, options(p.Addr()))
	if got, err := client.Get(t.Context(), "name").Result(); err != nil || got != "second" {
		t.Errorf("new connection went to %q, %v", got, err)
	}
}

// dial opens a connection that gives up reading after some seconds.
func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ask has the server answer a PING.
func ask(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len("+PONG\r\n"))
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "+PONG\r\n" {
		t.Fatalf("PING answered with %q, %v", answer, err)
	}
}

// silence sends a PING that must get no answer and leave the connection open.
func silence(conn net.Conn) error {
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 1))
	if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("read %d bytes, %w", n, err)
	}
	return conn.SetReadDeadline(time.Now().Add(startTimeout))
}

// isReset tells a connection that the proxy closed with bytes unread.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	}()
	return ln.Addr().String()
}
