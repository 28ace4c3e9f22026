package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// watchEvery is how often the watch looks at a Redis that is away, and whether the
	// node is ready.
	watchEvery = time.Second
	// pingTimeout is within that of a command, so that a black hole is told as one.
	pingTimeout = 2500 * time.Millisecond
	// waitingFirst and waitingLast are the pauses between two lines of the log about a
	// Redis that is waited for; each is twice the one before.
	waitingFirst = 2 * time.Second
	waitingLast  = time.Minute
)

// redisWatch knows why Redis does not answer: it is waited for at the start, told in the
// log, and asked while the node is not ready.
type redisWatch struct {
	client  redis.UniversalClient
	address string
	ready   func() error // of the gateway
	log     *slog.Logger

	up  chan struct{}         // closed when Redis has answered for the first time
	why atomic.Pointer[error] // one of those below; nil: it answers, or nobody has asked
}

func newRedisWatch(s *store, ready func() error, logger *slog.Logger) *redisWatch {
	return &redisWatch{client: s.client, address: s.address, ready: ready, log: logger, up: make(chan struct{})}
}

// run waits for Redis, and for the node to be ready, says so, and watches from then on.
func (w *redisWatch) run(ctx context.Context) error {
	if !w.wait(ctx) {
		return nil
	}
	close(w.up)
	tick := time.NewTicker(watchEvery / 20) // until the node serves, which somebody waits for
	defer tick.Stop()
	serving, asked := false, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		ready := w.ready() == nil
		switch {
		case ready && !serving:
			serving = true
			tick.Reset(watchEvery)
			w.log.Info("serving")
		case ready:
			w.note(nil)
		case time.Since(asked) >= watchEvery:
			w.note(w.ping(ctx))
			asked = time.Now()
		}
	}
}

// wait returns when Redis answers, or false when ctx is done. It says what it waits for,
// again after longer and longer.
func (w *redisWatch) wait(ctx context.Context) bool {
	var due time.Time
	pause := waitingFirst
	for ctx.Err() == nil {
		err := w.ping(ctx)
		w.note(err)
		if err == nil {
			return true
		}
		if now := time.Now(); ctx.Err() == nil && now.After(due) {
			w.log.Warn("waiting for redis at " + w.address + ": " + oneLine(plain(err)))
			due, pause = now.Add(pause), min(2*pause, waitingLast)
		}
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
		}
	}
	return false
}

// ping asks whether Redis answers. Who may not ask that has been answered.
func (w *redisWatch) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	err := w.client.Ping(ctx).Err()
	if redis.HasErrorPrefix(err, "NOPERM") {
		return nil
	}
	return err
}

// then returns run, put off until Redis has answered.
func (w *redisWatch) then(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-w.up:
			return run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *redisWatch) note(err error) {
	if err == nil {
		w.why.Store(nil)
		return
	}
	why := redisTrouble(err)
	w.why.Store(&why)
}

// trouble returns why Redis does not answer, as far as that is known.
func (w *redisWatch) trouble() error {
	if why := w.why.Load(); why != nil {
		return *why
	}
	return nil
}

// Why Redis does not answer, in words that /readyz may show to everybody.
var (
	errRedisAuth       = errors.New("redis: refuses the user or the password")
	errRedisLoading    = errors.New("redis: is loading its data")
	errRedisRefused    = errors.New("redis: connection refused")
	errRedisName       = errors.New("redis: host name not found")
	errRedisTLS        = errors.New("redis: TLS failed")
	errRedisSilent     = errors.New("redis: no answer")
	errRedisSocketGone = errors.New("redis: socket not found")
	errRedisAnswer     = errors.New("redis: answers with an error")
	errRedisClosed     = errors.New("redis: closes the connection, as one does that wants TLS")
	errRedisAway       = errors.New("redis: not reachable")
)

// redisTrouble returns which of them an error is.
func redisTrouble(err error) error {
	var netErr net.Error
	switch {
	case hasPrefix(err, "WRONGPASS", "NOAUTH", "ERR AUTH", "ERR invalid password"):
		return errRedisAuth
	case hasPrefix(err, "LOADING"):
		return errRedisLoading
	case errors.Is(err, syscall.ECONNREFUSED):
		return errRedisRefused
	case errors.Is(err, os.ErrNotExist):
		return errRedisSocketGone
	case isA[*net.DNSError](err):
		return errRedisName
	case isA[*tls.CertificateVerificationError](err), isA[x509.HostnameError](err), isA[tls.RecordHeaderError](err):
		return errRedisTLS
	case errors.As(err, &netErr) && netErr.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return errRedisSilent
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return errRedisClosed
	case isA[redis.Error](err):
		return errRedisAnswer
	}
	return errRedisAway
}

func hasPrefix(err error, prefixes ...string) bool {
	for _, prefix := range prefixes {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// plain is what an error says besides the address, which stands in front of it.
func plain(err error) string {
	if opErr, ok := errors.AsType[*net.OpError](err); ok {
		err = opErr.Err
	}
	if sysErr, ok := errors.AsType[*os.SyscallError](err); ok {
		err = sysErr.Err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer"
	}
	return strings.TrimPrefix(err.Error(), "redis: ")
}
