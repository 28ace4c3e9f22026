package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"wssgateway/broker"
	"wssgateway/gateway"
	"wssgateway/session"
)

// node is the parts of one gateway process, put together and not yet running.
type node struct {
	broker   *broker.Broker
	sessions *session.Registry
	gateway  *gateway.Gateway
	build    build
	log      *slog.Logger
}

func newNode(cfg *config, rdb redis.UniversalClient, tracer trace.Tracer, logger *slog.Logger) (*node, error) {
	b := buildInfo()
	registry := newRegistry(b)
	n := &node{build: b, log: logger}
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
	var err error
	n.gateway, err = gateway.New(cfg.Config, gateway.Deps{
		Broker:   n.broker,
		Sessions: n.sessions,
		Logger:   logger,
		Registry: registry,
		Console:  console,
		Tracer:   tracer,
	})
	return n, err
}

// run serves until ctx is done and the connections have drained.
func (n *node) run(ctx context.Context, on *listeners) error {
	n.log.Info("node started", "version", n.build.version, "commit", n.build.commit,
		"listen", on.public.Addr().String(), "admin_listen", on.admin.Addr().String())
	serve := func(ctx context.Context) error { return n.gateway.Serve(ctx, on.public, on.admin) }
	return runParts(ctx, part{"gateway", serve},
		part{"broker", n.broker.Run}, part{"session", n.sessions.Run}, part{"memory", trimMemory})
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
