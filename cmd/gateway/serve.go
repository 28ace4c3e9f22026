package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// serve runs a node until a signal, or until a part of it fails. The addresses
// are bound before anything else is done, so that a taken port is noticed by
// whoever starts the node and not by its clients.
func serve(p process) int {
	ctx, stop := untilSignal()
	defer stop()
	cfg, err := loadValid(p.env, p.args)
	if err != nil {
		p.complain(err)
		return exitUsage
	}
	bound, err := bind(cfg)
	if err != nil {
		p.complain(err)
		return exitFailed
	}
	defer bound.close()
	logger := newLogger(p.stderr, cfg)
	if err := runNode(ctx, cfg, bound, p.stdout, logger); err != nil {
		logger.Error("node failed", "error", err)
		return exitFailed
	}
	logger.Info("node stopped")
	return exitOK
}

// runNode builds a node on Redis, runs it, and undoes both in reverse order.
func runNode(ctx context.Context, cfg *config, bound *listeners, stdout io.Writer, logger *slog.Logger) error {
	redis.SetLogger(redisLogger{logger})
	s, err := openStore(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	tracer, stopTracing, err := startTracing(cfg, buildInfo(), logger)
	if err != nil {
		return err
	}
	defer stopTracing()
	n, err := newNode(cfg, s.client, tracer, logger)
	if err != nil {
		return err
	}
	if cfg.Dev {
		if err := greet(stdout, cfg, bound, s.embedded); err != nil {
			return err
		}
	}
	return n.run(ctx, bound)
}

// listeners are the two addresses of a node.
type listeners struct{ public, admin net.Listener }

func bind(cfg *config) (*listeners, error) {
	public, err := listen(cfg, "listen", cfg.Listen)
	if err != nil {
		return nil, err
	}
	admin, err := listen(cfg, "admin_listen", cfg.AdminListen)
	if err != nil {
		public.Close()
		return nil, err
	}
	return &listeners{public, admin}, nil
}

func (l *listeners) close() {
	l.admin.Close()
	l.public.Close()
}

// listen binds the address that the setting at path has.
func listen(cfg *config, path, addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err == nil {
		return listener, nil
	}
	// The address stands in front, and "bind" says nothing to who runs it.
	if opErr, ok := errors.AsType[*net.OpError](err); ok {
		err = opErr.Err
	}
	if sysErr, ok := errors.AsType[*os.SyscallError](err); ok {
		err = sysErr.Err
	}
	name, ok := cfg.origins.of(path)
	if !ok {
		name = path
	}
	return nil, fmt.Errorf("%s: cannot listen on %s: %w", name, addr, err)
}

// store is the Redis that a node works on.
type store struct {
	client   redis.UniversalClient
	embedded *miniredis.Miniredis // nil unless it is this process's own
}

// openStore returns the configured Redis, or in development mode one of the
// process's own if none is configured.
func openStore(cfg *config) (*store, error) {
	s := &store{}
	address := cfg.Redis
	if address == "" {
		var err error
		if s.embedded, err = startEmbeddedRedis(); err != nil {
			return nil, err
		}
		address = "redis://" + s.embedded.Addr()
	}
	options, err := parseRedis(address)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	s.client = newRedis(options)
	return s, nil
}

func (s *store) close() {
	s.client.Close()
	if s.embedded != nil {
		s.embedded.Close()
	}
}
