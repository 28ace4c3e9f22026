package main

import (
	"context"
	"io"
	"strings"
	"testing"
)

// TestFloor: the scenarios run against the floor as against a gateway.
func TestFloor(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := runFloor(ctx, []string{"--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"}, w)
		done <- err
	}()
	line := make([]byte, 200)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	// floor: ws://127.0.0.1:1/ws, publish to http://127.0.0.1:2
	f := strings.Fields(string(line[:n]))
	address, api := strings.TrimSuffix(f[1], ","), f[len(f)-1]
	for _, scenario := range []string{"idle", "fanout", "direct", "storm"} {
		stdout, _ := runBench(t, exitOK, scenario, "--url", address, "--api", api, "--jwt-secret", "x",
			"--connections", "50", "--warm-up", "10ms", "--duration", "300ms", "--in-flight", "4")
		if !strings.Contains(stdout, "received") {
			t.Errorf("%s: %s", scenario, stdout)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
