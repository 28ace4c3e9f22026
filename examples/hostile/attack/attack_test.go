package attack_test

import (
	"context"
	"net"
	"testing"
	"time"

	"wssgateway/examples/hostile/attack"
)

// TestEveryAttackActs: none is held up by a server that answers nothing, so that
// what is done to the sink is what is done to a gateway.
func TestEveryAttackActs(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() { attack.Sink(serving, ln); close(served) }()
	defer func() { stop(); <-served }()

	const took = 2 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), took)
	defer cancel()
	addr := ln.Addr().String()
	results := attack.Run(ctx, attack.Target{Public: addr, Admin: addr, Secret: "a secret of more than thirty-two bytes"}, nil)
	for i, a := range attack.All() {
		r := results[i]
		if r.Name != a.Name {
			t.Fatalf("result %d is of %q, want %q", i, r.Name, a.Name)
		}
		if float64(r.Acts) < a.PerSecond*took.Seconds()/2 || r.Acts == 0 {
			t.Errorf("%s: %s", a.Name, r)
		}
	}
}
