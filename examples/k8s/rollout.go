package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// upgrade installs the release with more values than those of the file.
func (w *world) upgrade(values ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		args := []string{"upgrade", release, chart, "-f", w.values, "--wait", "--timeout", "180s"}
		for _, v := range values {
			args = append(args, "--set", v)
		}
		return errors.Join(command(ctx, "helm", args...).run(), w.settled(ctx))
	}
}

// settled waits until the rollout is over and no pod is leaving any more: they
// drain for a while after it.
func (w *world) settled(ctx context.Context) error {
	if err := kubectl(ctx, "rollout", "status", "deployment/"+release, "--timeout=180s").run(); err != nil {
		return err
	}
	return await(ctx, 2*time.Minute, "the pods that leave", func() (bool, error) {
		pods, err := w.pods(ctx)
		return err == nil && !slices.ContainsFunc(pods, pod.leaving), err
	})
}

type pod struct {
	Metadata struct {
		Name              string
		DeletionTimestamp string
	}
	Spec   struct{ NodeName string }
	Status struct{ Phase string }
}

func (p pod) leaving() bool { return p.Metadata.DeletionTimestamp != "" }

func (w *world) pods(ctx context.Context) ([]pod, error) {
	list, err := object[struct{ Items []pod }](ctx, "pods", "-l", "app.kubernetes.io/component=gateway")
	return list.Items, err
}

func (w *world) restart(ctx context.Context) error {
	return errors.Join(kubectl(ctx, "rollout", "restart", "deployment/"+release).run(), w.settled(ctx))
}

// restartWith changes the configuration, which only the restart after it shows: the
// pods that go must have it already.
func (w *world) restartWith(values ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		return errors.Join(w.upgrade(values...)(ctx), w.restart(ctx))
	}
}

func (w *world) deletePod(ctx context.Context) error {
	pods, err := w.pods(ctx)
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return errors.New("there is no pod")
	}
	return errors.Join(kubectl(ctx, "delete", "pod", pods[0].Metadata.Name, "--wait=true").run(), w.settled(ctx))
}

func (w *world) drainMachine(ctx context.Context) error {
	err := kubectl(ctx, "drain", w.cluster.fragile(), "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s").run()
	err = errors.Join(err, w.settled(ctx))
	pods, listErr := w.pods(ctx)
	for _, p := range pods {
		if p.Spec.NodeName == w.cluster.fragile() {
			err = errors.Join(err, fmt.Errorf("%s is still on %s", p.Metadata.Name, p.Spec.NodeName))
		}
	}
	return errors.Join(err, listErr, kubectl(ctx, "uncordon", w.cluster.fragile()).run())
}

func (w *world) rollback(ctx context.Context) error {
	return errors.Join(command(ctx, "helm", "rollback", release, "1", "--wait", "--timeout", "180s").run(), w.settled(ctx))
}

func (w *world) replicas(ctx context.Context) (int, error) {
	d, err := object[struct{ Spec struct{ Replicas int } }](ctx, "deployment", release)
	return d.Spec.Replicas, err
}

// autoscalerOn turns the autoscaler on with three pods there: none may go because of
// that. A pod asks for little CPU, so that the load of some hundred clients counts.
func (w *world) autoscalerOn(ctx context.Context) error {
	if err := w.upgrade("replicas=3")(ctx); err != nil {
		return err
	}
	if err := command(ctx, "helm", "upgrade", release, chart, "-f", w.values,
		"--set", "autoscaling.enabled=true,autoscaling.maxReplicas=4,autoscaling.targetCPUPercent=60,resources.requests.cpu=40m",
		"--set-json", `autoscaling.scaleDown={"stabilizationWindowSeconds":30,"policies":[{"type":"Pods","value":1,"periodSeconds":15}]}`).run(); err != nil {
		return err
	}
	n, err := w.replicas(ctx)
	if err == nil && n != 3 {
		err = fmt.Errorf("%d pods are wanted after the autoscaler was turned on, of 3 before", n)
	}
	return errors.Join(err, w.settled(ctx))
}

func (w *world) awaitReplicas(want int, limit time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		err := await(ctx, limit, fmt.Sprintf("%d pods by the autoscaler", want), func() (bool, error) {
			n, err := w.replicas(ctx)
			return n == want, err
		})
		return errors.Join(err, w.settled(ctx))
	}
}

// goLive has the Services of deploy/bluegreen lead to a release.
func (w *world) goLive(ctx context.Context, to string) error {
	manifest, err := os.ReadFile("deploy/bluegreen/service.yaml")
	if err != nil {
		return err
	}
	const blue = "app.kubernetes.io/instance: gateway-blue"
	if !strings.Contains(string(manifest), blue) {
		return fmt.Errorf("deploy/bluegreen/service.yaml has no %q", blue)
	}
	return kubectl(ctx, "apply", "-f", "-").feed(strings.ReplaceAll(string(manifest), blue, "app.kubernetes.io/instance: "+to)).run()
}

// redisPassword is that of the first release's Redis, which another one uses too.
const redisPassword = "lab"

// blueGreen installs another release beside the first, on its Redis, switches the
// Service, and takes the first one's pods away; and then back again.
func (w *world) blueGreen(ctx context.Context) error {
	green := command(ctx, "helm", "install", "green", chart, "-f", w.values, "--wait", "--timeout", "120s", "--set", "fullnameOverride=green",
		"--set", "redis.trial.enabled=false,redis.url=redis://:"+redisPassword+"@"+release+"-redis:6379,ingress.enabled=false")
	scale := func(name, n string) error {
		return errors.Join(kubectl(ctx, "scale", "deployment/"+name, "--replicas="+n).run(),
			kubectl(ctx, "rollout", "status", "deployment/"+name, "--timeout=120s").run(),
			await(ctx, 2*time.Minute, "the pods that leave", func() (bool, error) {
				pods, err := w.pods(ctx)
				return err == nil && !slices.ContainsFunc(pods, pod.leaving), err
			}))
	}
	for _, do := range []func() error{
		green.run,
		func() error { return w.goLive(ctx, "green") },
		func() error { return scale(release, "0") },
		func() error { return scale(release, "2") },
		func() error { return w.goLive(ctx, release) },
		func() error { return scale("green", "0") },
		command(ctx, "helm", "uninstall", "green", "--wait").run,
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// spread undoes what the steps before have changed, with a pod on each machine.
func (w *world) spread(ctx context.Context) error {
	if err := w.upgrade()(ctx); err != nil {
		return err
	}
	return await(ctx, 3*time.Minute, "a pod on "+w.cluster.fragile(), func() (bool, error) {
		pods, err := w.pods(ctx)
		if err != nil || slices.ContainsFunc(pods, func(p pod) bool { return p.Spec.NodeName == w.cluster.fragile() }) {
			return err == nil, err
		}
		return false, w.restart(ctx)
	})
}
