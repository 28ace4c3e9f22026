package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// serve runs a node until a signal, or until a part of it fails. The addresses
// are bound before anything else is done, so that a taken port is noticed by
// whoever starts the node and not by its clients.
func serve(p process) int {
	signal.Ignore(syscall.SIGPIPE) // who reads the log may go; the node stays
	ctx, stop := untilSignal()
	defer stop()
	cfg, err := loadValid(p.env, p.args)
	if err != nil {
		p.complain(err)
		if len(p.args) == 0 {
			p.complain(errors.New("to try it out, without any configuration: gateway serve --dev"))
		}
		return exitUsage
	}
	bound, err := bind(cfg)
	if err != nil {
		p.complain(err)
		return exitUsage
	}
	defer bound.close()
	logger := newLogger(p.stderr, cfg)
	defer exitInTime(ctx, cfg.DrainTimeout, logger)()
	n, err := buildNode(cfg, bound, p.stdout, logger)
	if err != nil {
		p.complain(err)
		return exitUsage
	}
	defer n.store.close()
	if err := n.run(ctx, bound); err != nil {
		logger.Error("node failed", "error", err)
		return exitFailed
	}
	logger.Info("node stopped")
	return exitOK
}

// buildNode builds a node on Redis, which need not be there yet, and in development
// mode says what there is to try.
func buildNode(cfg *config, bound *listeners, stdout io.Writer, logger *slog.Logger) (*node, error) {
	redis.SetLogger(redisLogger{logger})
	s, err := openStore(cfg)
	if err != nil {
		return nil, err
	}
	n, err := newNode(cfg, s, logger)
	if err == nil && cfg.Dev {
		err = greet(stdout, cfg, bound, s.embedded)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return n, nil
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
	return nil, fmt.Errorf("%s: cannot listen on %s: %w%s", name, addr, err, remedy(err))
}

// remedy says what can be done about an address that cannot be listened on.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ": another process has it, perhaps a gateway; stop that one or choose another address"
	case errors.Is(err, syscall.EACCES):
		return ": ports below 1024 need a privilege (CAP_NET_BIND_SERVICE); choose another one"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ": this host does not have that address; :PORT is all of them"
	}
	return ""
}

// store is the Redis that a node works on.
type store struct {
	client   redis.UniversalClient
	address  string               // where it is, and nothing else of the URL
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
	s.client, s.address = newRedis(options), strings.Join(options.Addrs, ",")
	return s, nil
}

func (s *store) close() {
	s.client.Close()
	if s.embedded != nil {
		s.embedded.Close()
	}
}
