//go:build !linux

package transport

import "context"

// poller does nothing here: each connection has a goroutine that waits.
type poller struct{}

func newPoller() (*poller, error) { return &poller{}, nil }

func (p *poller) add(*Conn) bool { return false }

func (p *poller) remove(*Conn) {}

func (p *poller) run(ctx context.Context) { <-ctx.Done() }
