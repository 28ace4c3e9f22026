package main

import (
	"context"
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

// backWithin is how long 99 of 100 clients may be without a connection after their
// machine was killed, in ms: Kubernetes keeps sending some of them there for a minute.
const backWithin = 5000

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
		if back, ok := f["without a connection p99"]; s.kills && (!ok || back > backWithin) {
			wrong = append(wrong, "without a connection p99")
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
