package main

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

// failTogether gives the commands of a pipeline the error of a connection that was
// refused, above all for a wrong password. The library leaves them without: then each
// looks like one that was carried out and answered with nothing.
type failTogether struct{}

func (failTogether) DialHook(next redis.DialHook) redis.DialHook { return next }

func (failTogether) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (failTogether) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		own := func(cmd redis.Cmder) bool { return cmd.Err() != nil }
		if err != nil && !slices.ContainsFunc(cmds, own) {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
		}
		return err
	}
}
