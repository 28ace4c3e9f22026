//go:build !linux

package gateway

import "context"

// poller does nothing here: each connection has a goroutine that waits.
type poller struct{}

func newPoller() (*poller, error) { return &poller{}, nil }

func (p *poller) add(*conn) bool { return false }

func (p *poller) remove(*conn) {}

func (p *poller) run(ctx context.Context) { <-ctx.Done() }
