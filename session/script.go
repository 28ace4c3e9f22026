package session

import (
	"context"
	_ "embed" // for the scripts
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/clock.lua
	clockSource string

	//go:embed lua/user.lua
	userSource string
	//go:embed lua/claim.lua
	claimSource string
	//go:embed lua/write.lua
	writeSource string
	//go:embed lua/look.lua
	lookSource string
	//go:embed lua/leave.lua
	leaveSource string
	//go:embed lua/disconnect.lua
	disconnectSource string
	//go:embed lua/sessions.lua
	sessionsSource string
	//go:embed lua/ack.lua
	ackSource string
	//go:embed lua/alive.lua
	aliveSource string

	claimScript      = redis.NewScript(clockSource + userSource + claimSource)
	writeScript      = redis.NewScript(clockSource + userSource + writeSource)
	lookScript       = redis.NewScript(clockSource + userSource + lookSource)
	leaveScript      = redis.NewScript(clockSource + userSource + leaveSource)
	disconnectScript = redis.NewScript(clockSource + userSource + disconnectSource)
	sessionsScript   = redis.NewScript(clockSource + userSource + sessionsSource)
	ackScript        = redis.NewScript(clockSource + ackSource)
	aliveScript      = redis.NewScript(clockSource + userSource + aliveSource)

	//go:embed lua/nodes.lua
	nodesSource string
	//go:embed lua/acquire.lua
	acquireSource string
	//go:embed lua/renew.lua
	renewSource string
	//go:embed lua/leases.lua
	leasesSource string
	//go:embed lua/release.lua
	releaseSource string
	//go:embed lua/forget.lua
	forgetSource string

	acquireScript = redis.NewScript(clockSource + nodesSource + acquireSource)
	renewScript   = redis.NewScript(clockSource + nodesSource + renewSource)
	leasesScript  = redis.NewScript(clockSource + nodesSource + leasesSource)
	releaseScript = redis.NewScript(clockSource + nodesSource + releaseSource)
	forgetScript  = redis.NewScript(clockSource + nodesSource + forgetSource)

	//go:embed lua/gone.lua
	goneSource string
	//go:embed lua/gone_add.lua
	goneAddSource string
	//go:embed lua/gone_drop.lua
	goneDropSource string
	//go:embed lua/gone_take.lua
	goneTakeSource string
	//go:embed lua/gone_done.lua
	goneDoneSource string
	//go:embed lua/event.lua
	eventSource string

	goneAddScript  = redis.NewScript(clockSource + goneSource + goneAddSource)
	goneDropScript = redis.NewScript(goneSource + goneDropSource)
	goneTakeScript = redis.NewScript(clockSource + goneTakeSource)
	goneDoneScript = redis.NewScript(goneDoneSource)
	eventScript    = redis.NewScript(clockSource + eventSource)
)

// errAnswer is an answer that no script of ours gives.
var errAnswer = errors.New("unexpected answer")

// call is one run of a script. Its answer is there after run.
type call struct {
	script *redis.Script
	keys   []string
	args   []any
	answer *redis.Cmd
}

func newCall(script *redis.Script, keys []string, args ...any) *call {
	return &call{script: script, keys: keys, args: args}
}

// run sends calls in one pipeline and those whose script Redis does not have
// once more with the script. It returns the first error; each call's own is in
// its answer.
func (r *Registry) run(ctx context.Context, calls ...*call) error {
	return r.runAfter(ctx, nil, calls...)
}

// runAfter is run with a command in front, whose error is in itself alone.
func (r *Registry) runAfter(ctx context.Context, first redis.Cmder, calls ...*call) error {
	pipe := r.rdb.Pipeline()
	if first != nil {
		_ = pipe.Process(ctx, first) // queues
	}
	for _, c := range calls {
		c.answer = c.script.EvalSha(ctx, pipe, c.keys, c.args...)
	}
	_, _ = pipe.Exec(ctx) // sets the error of each command

	for _, c := range calls {
		if redis.HasErrorPrefix(c.answer.Err(), "NOSCRIPT") {
			c.answer = c.script.Eval(ctx, pipe, c.keys, c.args...)
		}
	}
	if pipe.Len() > 0 {
		_, _ = pipe.Exec(ctx)
	}
	for _, c := range calls {
		if err := c.answer.Err(); err != nil {
			return err
		}
	}
	return nil
}

// fields returns an answer that is a list of at least n, as strings.
func (c *call) fields(n int) ([]string, error) {
	list, err := c.answer.Slice()
	if err != nil {
		return nil, err
	}
	if len(list) < n {
		return nil, fmt.Errorf("%w: %v", errAnswer, list)
	}
	return texts(list), nil
}

func texts(list []any) []string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = fmt.Sprint(v)
	}
	return s
}
