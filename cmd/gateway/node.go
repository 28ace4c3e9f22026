package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"wssgateway/broker"
	"wssgateway/gateway"
	"wssgateway/session"
)

// node is the parts of one gateway process, put together and not yet running.
type node struct {
	store    *store
	redis    *redisWatch
	broker   *broker.Broker
	sessions *session.Registry
	gateway  *gateway.Gateway
	traces   func(context.Context) error // runs until the last are to be sent
	build    build
	log      *slog.Logger
}

func newNode(cfg *config, s *store, logger *slog.Logger) (*node, error) {
	b := buildInfo()
	registry, rdb := newRegistry(b), s.client
	tracer, traces, err := startTracing(cfg, b, logger)
	if err != nil {
		return nil, err
	}
	rdb.AddHook(newRefusals(registry, logger))
	n := &node{store: s, traces: traces, build: b, log: logger}
	n.redis = newRedisWatch(s, func() error { return n.gateway.Ready() }, logger)
	n.broker = broker.New(rdb, broker.Config{
		Prefix:     cfg.Prefix,
		Node:       fmt.Sprintf("%s.%d", cfg.NodeName, time.Now().UnixMilli()), // a name may come back
		Logger:     logger,
		Registerer: registry,
	})
	var gone func(context.Context, []session.Gone) error
	if cfg.HasPresence() {
		gone = func(ctx context.Context, gone []session.Gone) error { return n.gateway.Gone(ctx, gone) }
	}
	n.sessions = session.New(rdb, session.Config{
		Prefix:       cfg.Prefix,
		Node:         cfg.NodeName,
		Version:      b.version,
		ResumeWindow: cfg.ResumeWindow,
		Lease:        cfg.Lease,
		Heartbeat:    cfg.Heartbeat,
		Gone:         gone,
		Restored:     func() { n.gateway.Restored() },
		Events:       cfg.Events,
		Stats:        func() session.Stats { return n.gateway.Stats() },
		Logger:       logger,
		Registerer:   registry,
	})
	var console http.Handler
	if cfg.Dev {
		console = newConsole(cfg)
	}
	n.gateway, err = gateway.New(cfg.Config, gateway.Deps{
		Broker:   n.broker,
		Sessions: n.sessions,
		Logger:   logger,
		Registry: registry,
		Console:  console,
		Tracer:   tracer,
		Trouble:  n.redis.trouble,
	})
	return n, err
}

// run serves until ctx is done and the connections have drained. Nothing but the watch
// asks anything of a Redis that has never answered: one voice tells about it.
func (n *node) run(ctx context.Context, on *listeners) error {
	n.log.Info("node started", "version", n.build.version, "commit", n.build.commit,
		"listen", on.public.Addr().String(), "admin_listen", on.admin.Addr().String())
	serve := func(ctx context.Context) error { return n.gateway.Serve(ctx, on.public, on.admin) }
	return runParts(ctx, part{"gateway", serve}, part{"redis", n.redis.run},
		part{"broker", n.redis.then(n.broker.Run)}, part{"session", n.redis.then(n.sessions.Run)},
		part{"traces", n.traces}, part{"memory", trimMemory})
}

// newRegistry returns a registry with what every Go process tells of itself.
func newRegistry(b build) *prometheus.Registry {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gateway_build_info",
		Help: "Always 1; what the node was built of is in the labels.",
		ConstLabels: prometheus.Labels{
			"version": b.version, "commit": b.commit, "goversion": b.goVersion,
		},
	})
	info.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}
