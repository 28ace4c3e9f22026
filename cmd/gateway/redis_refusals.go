package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// refusalsEvery is how often refusals with one code are logged: they may go on for
// long, many in a second.
const refusalsEvery = time.Minute

// refusalCode says why Redis refuses a command: how its answer begins.
type refusalCode string

// refusalOther is any answer but these.
const refusalOther refusalCode = "other"

var refusalCodes = []refusalCode{
	"OOM",                    // full
	"READONLY", "MASTERDOWN", // a replica
	"MISCONF",                       // it cannot save
	"NOREPLICAS",                    // too few replicas
	"NOPERM", "NOAUTH", "WRONGPASS", // what the user may do
	"WRONGTYPE",                      // somebody else has written the key
	"LOADING", "CLUSTERDOWN", "BUSY", // it does nothing else now
	refusalOther,
}

// expectedAnswers are errors that are part of the protocol: the script or the server is
// another one, and the command is sent again.
var expectedAnswers = []string{"NOSCRIPT", "MOVED", "ASK", "TRYAGAIN"}

// refusals counts and logs what Redis answers with an error: it is there, and pub/sub
// may deliver, so that nothing else might tell.
type refusals struct {
	counts map[refusalCode]prometheus.Counter
	log    *slog.Logger

	mu     sync.Mutex
	logged map[refusalCode]time.Time // guarded by mu
}

func newRefusals(reg prometheus.Registerer, logger *slog.Logger) *refusals {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gateway_redis_refusals_total",
		Help: "Commands that Redis answered with an error, by its code.",
	}, []string{"code"})
	reg.MustRegister(vec)
	r := &refusals{
		counts: make(map[refusalCode]prometheus.Counter), log: logger, logged: make(map[refusalCode]time.Time),
	}
	for _, code := range refusalCodes {
		r.counts[code] = vec.WithLabelValues(string(code))
	}
	return r
}

// DialHook implements redis.Hook.
func (*refusals) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (r *refusals) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		r.look(ctx, cmd, err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (r *refusals) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	next = failTogether{}.ProcessPipelineHook(next)
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			r.look(ctx, cmd, cmd.Err())
		}
		return err
	}
}

// look takes in how a command ended. Whether Redis may be asked at all is the watch's to
// tell.
func (r *refusals) look(ctx context.Context, cmd redis.Cmder, err error) {
	var answer redis.Error
	if err == nil || !errors.As(err, &answer) || errors.Is(err, redis.Nil) || cmd.Name() == "ping" {
		return
	}
	text := answer.Error()
	if slices.ContainsFunc(expectedAnswers, func(code string) bool { return begins(text, code) }) {
		return
	}
	code := refusalOf(text)
	r.counts[code].Inc()
	if r.due(code) {
		attrs := []any{"code", string(code), "command", cmd.Name(), "error", text}
		if code == "WRONGTYPE" {
			attrs = append(attrs, "keys", keysOf(cmd))
		}
		r.log.WarnContext(ctx, "redis refuses commands", attrs...)
	}
}

// keysOf returns the keys of a command on data: those of a script, or the first
// argument.
func keysOf(cmd redis.Cmder) []any {
	args := cmd.Args()
	from, keys := 1, 1
	if strings.HasPrefix(cmd.Name(), "eval") && len(args) > 2 {
		keys, _ = args[2].(int)
		from = 3
	}
	from = min(from, len(args))
	return args[from:min(from+keys, len(args))]
}

// due reports whether a refusal is to be logged.
func (r *refusals) due(code refusalCode) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.logged[code]; ok && time.Since(last) < refusalsEvery {
		return false
	}
	r.logged[code] = time.Now()
	return true
}

// scriptUser is how Redis 7.0 says NOPERM within a script.
const scriptUser = "ERR The user executing the script can't"

// refusalOf returns the code of an answer. Redis before 7.0 has it within that of a
// script.
func refusalOf(text string) refusalCode {
	for _, code := range refusalCodes {
		if begins(text, string(code)) || strings.Contains(text, ": -"+string(code)+" ") {
			return code
		}
	}
	if begins(text, scriptUser) {
		return "NOPERM"
	}
	return refusalOther
}

func begins(text, code string) bool { return strings.HasPrefix(text, code+" ") }
