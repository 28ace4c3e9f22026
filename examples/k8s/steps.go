package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	examples "wssgateway/examples/lab"
)

const chart = "charts/gateway"

// step is one thing that happens to the release.
type step struct {
	name string
	// always: the others build on it.
	always bool
	// do does it; with a load, while clients are connected.
	do   func(context.Context) error
	load bool
	rate int // messages a second in each way; 0: usualRate
	// live: clients connect through the Service gateway-live alone.
	live bool
	// kills: connections break without having been handed over.
	kills bool
	// alerts: some are to fire.
	alerts bool
	// mustFail is the figure by which a negative control fails.
	mustFail string
}

const usualRate = 60

func (w *world) steps() []step {
	return []step{
		{name: "lint", always: true, do: w.lint},
		{name: "dry run", always: true, do: w.dryRun},
		{name: "install", always: true, do: w.install},
		{name: "helm test", always: true, do: w.helmTest},
		{name: "prometheus", always: true, do: w.startPrometheus},
		{name: "upgrade", load: true, do: w.upgrade("config.log_level=debug")},
		{name: "restart", load: true, do: w.restart},
		{name: "delete pod", load: true, do: w.deletePod},
		{name: "drain machine", load: true, do: w.drainMachine},
		{name: "rollback", load: true, do: w.rollback},
		{name: "blue-green", load: true, live: true, do: w.blueGreen},
		{name: "autoscaler on", load: true, do: w.autoscalerOn},
		{name: "scale up", load: true, rate: 500, do: w.awaitReplicas(4, 4*time.Minute)},
		{name: "scale down", load: true, rate: 5, do: w.awaitReplicas(2, 5*time.Minute)},
		{name: "autoscaler off", load: true, do: w.upgrade()},
		{name: "no drain", load: true, do: w.restartWith("config.drain_delay=0s", "config.drain_timeout=1s"), mustFail: "peak reconnects/s"},
		{name: "no drain no history", load: true, mustFail: "lost",
			do: w.restartWith("config.drain_delay=0s", "config.drain_timeout=1s", `config.classes.\*.history.size=0`, "config.classes.user.history.size=0")},
		{name: "reset", do: w.spread},
		{name: "messages late", load: true, alerts: true, do: w.late},
		{name: "kill machine", load: true, alerts: true, kills: true, do: w.killMachine},
		// Last: the Redis of a trial keeps nothing, and nodes that could not reach it
		// look as if they had died.
		{name: "redis gone", do: w.redisGone},
	}
}

// take takes a step and judges what clients noticed.
func (w *world) take(ctx context.Context, s step) error {
	if !s.load {
		if err := s.do(ctx); err != nil {
			return err
		}
		w.say("ok    %s", s.name)
		return nil
	}
	rate := s.rate
	if rate == 0 {
		rate = usualRate
	}
	began := time.Now()
	var took time.Duration
	by := ways
	if s.live {
		by = []way{live}
		if err := w.goLive(ctx, release); err != nil {
			return err
		}
	}
	got, err := w.under(ctx, by, rate, func(ctx context.Context) error {
		begin := time.Now()
		defer func() { took = time.Since(begin) }()
		return s.do(ctx)
	})
	for _, way := range by {
		if f := got[way.name]; f != nil {
			w.say("      %-22s %-9s %s", s.name, way.name, f)
		}
	}
	if err != nil {
		return err
	}
	wrong := s.judge(got, w.clients)
	switch {
	case s.mustFail != "" && slices.Contains(wrong, s.mustFail):
		w.say("ok    %s: fails on %q, as it must", s.name, s.mustFail)
		return nil
	case s.mustFail != "":
		return fmt.Errorf("did not fail on %q: the test would not notice", s.mustFail)
	case len(wrong) > 0:
		return fmt.Errorf("not as it should be: %s", strings.Join(wrong, ", "))
	}
	if !s.alerts {
		if err := w.prom.quiet(ctx, began); err != nil {
			return err
		}
	}
	w.say("ok    %s: took %.1fs", s.name, took.Seconds())
	return nil
}

// judge returns what is not as it should be.
func (s step) judge(got map[string]examples.Figures, clients int) []string {
	var wrong []string
	for _, f := range got {
		wrong = append(wrong, f.Wrong()...)
		// A node that drains has some half of the clients, and nine seconds for
		// them. Twice that pace is what two that drain one after the other, a
		// moment apart, may look like.
		if most := float64(clients) / 2 / 9 * 3; !s.kills && f["peak reconnects/s"] > most {
			wrong = append(wrong, "peak reconnects/s")
		}
	}
	return slices.Compact(wrong)
}

func (w *world) lint(ctx context.Context) error {
	files, err := filepath.Glob(chart + "/ci/*-values.yaml")
	if err != nil {
		return err
	}
	for _, file := range append(files, w.values) {
		if err := command(ctx, "helm", "lint", "--strict", chart, "-f", file).run(); err != nil {
			return err
		}
	}
	return nil
}

// dryRun has the API server itself look at what would be installed, and if there is
// kubeconform and a folder of schemas, kubeconform.
func (w *world) dryRun(ctx context.Context) error {
	manifest, err := command(ctx, "helm", "template", release, chart, "-f", w.values).output()
	if err != nil {
		return err
	}
	if err := kubectl(ctx, "apply", "--dry-run=server", "--validate=strict", "-f", "-").feed(manifest).run(); err != nil {
		return err
	}
	schemas, err := filepath.Glob(filepath.Join(os.Getenv("LAB"), "schemas", "*-strict"))
	if os.Getenv("LAB") == "" || len(schemas) == 0 || err != nil {
		return err
	}
	return command(ctx, "kubeconform", "-strict", "-schema-location", schemas[0]+"/{{.ResourceKind}}{{.KindSuffix}}.json", "-").feed(manifest).run()
}

func (w *world) install(ctx context.Context) error {
	return command(ctx, "helm", "upgrade", "--install", release, chart, "-f", w.values, "--wait", "--timeout", "120s").run()
}

func (w *world) helmTest(ctx context.Context) error {
	return command(ctx, "helm", "test", release, "--timeout", "60s", "--logs").run()
}

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

// blueGreen installs another release beside the first, on its Redis, switches the
// Service, and takes the first one's pods away; and then back again.
func (w *world) blueGreen(ctx context.Context) error {
	green := command(ctx, "helm", "install", "green", chart, "-f", w.values, "--wait", "--timeout", "120s", "--set", "fullnameOverride=green",
		"--set", "redis.trial.enabled=false,redis.url=redis://"+release+"-redis:6379,ingress.enabled=false")
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
