package main

import (
	"context"

	"wssgateway/examples/lab"
)

// As much is kept as alice may miss; what is kept is all that can be replayed.
const configuration = "classes: {room: {history: {size: 2000}}}\n"

// newWorld builds the gateway and starts everything. It returns once both
// gateways are ready. What it returns is to be closed, also after an error.
func newWorld(ctx context.Context) (*lab.Lab, error) {
	w, err := lab.New(ctx, configuration)
	if err != nil {
		return w, err
	}
	for _, name := range []string{"gateway-1", "gateway-2"} {
		if _, err := w.AddNode(name, "--log-level", "error"); err != nil {
			return w, err
		}
	}
	for _, n := range w.Nodes {
		if err := n.AwaitReady(ctx); err != nil {
			return w, err
		}
	}
	return w, nil
}
