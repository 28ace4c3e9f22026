package main

import (
	"context"
	"errors"
	"slices"
	"time"

	examples "wssgateway/examples/lab"
)

// late freezes the gateways of a machine for two seconds of three, until somebody is
// told that messages are late.
func (w *world) late(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	for {
		err := errors.Join(w.cluster.signal(ctx, w.cluster.stable(), "STOP"), examples.Pause(ctx, 2*time.Second),
			w.cluster.signal(context.WithoutCancel(ctx), w.cluster.stable(), "CONT"), examples.Pause(ctx, time.Second))
		if err != nil {
			return err
		}
		firing, err := w.prom.firing(ctx, "GatewayMessagesLate")
		if firing || err != nil {
			return err
		}
	}
}

// redisGone takes Redis away until somebody is told, and has it back.
func (w *world) redisGone(ctx context.Context) error {
	scale := func(n string) error {
		return kubectl(ctx, "scale", "deployment/"+release+"-redis", "--replicas="+n).run()
	}
	err := scale("0")
	if err == nil {
		err = w.prom.await(ctx, "GatewayRedisUnavailable", "GatewayNotReady")
	}
	err = errors.Join(err, scale("1"), kubectl(ctx, "rollout", "status", "deployment/"+release, "--timeout=120s").run())
	return errors.Join(err, w.helmTest(ctx))
}

// killMachine has a machine vanish with the pod on it. Its address stays in the
// Service until Kubernetes has noticed.
func (w *world) killMachine(ctx context.Context) error {
	if err := w.cluster.kill(ctx, w.cluster.fragile()); err != nil {
		return err
	}
	if err := w.prom.await(ctx, "GatewayNodeLost"); err != nil {
		return err
	}
	err := await(ctx, 3*time.Minute, "Kubernetes to replace the pod", func() (bool, error) {
		pods, err := w.pods(ctx)
		left := slices.ContainsFunc(pods, func(p pod) bool { return !p.leaving() && p.Spec.NodeName == w.cluster.fragile() })
		return err == nil && !left, err
	})
	return errors.Join(err, kubectl(ctx, "rollout", "status", "deployment/"+release, "--timeout=120s").run())
}
