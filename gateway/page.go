package gateway

import (
	"context"

	"wssgateway/broker"
)

const (
	// pageMessages and pageBytes bound a page of what is kept of a channel: a page
	// ends with the message that reaches the bytes.
	pageMessages = 100
	pageBytes    = 128 << 10
)

// reserve waits until the node has memory for so many bytes more, after those who
// wait for it already. free gives it back.
func (g *Gateway) reserve(ctx context.Context, bytes int64) (free func(), err error) {
	if err := g.budget.Acquire(ctx, bytes); err != nil {
		return nil, err
	}
	return func() { g.budget.Release(bytes) }, nil
}

// pageCost is what a page takes while it is read and becomes frames: the payloads,
// and the frames that are made of them.
func (g *Gateway) pageCost() int64 {
	const envelope = 1 << 10 // of the largest message
	return 2 * (pageBytes + int64(g.cfg.Limits.FrameSize) + envelope)
}

// readPage reads a page of a channel. The memory for it must have been reserved.
func (g *Gateway) readPage(ctx context.Context, channel string, after broker.ID, limit, bytes int) (broker.Page, error) {
	return g.broker.ReadPage(ctx, channel, after, min(limit, pageMessages), min(bytes, pageBytes))
}

// readPageBack is readPage for what is before a message, newest first.
func (g *Gateway) readPageBack(ctx context.Context, channel string, before broker.ID, limit, bytes int) (broker.Page, error) {
	return g.broker.ReadPageBack(ctx, channel, before, min(limit, pageMessages), min(bytes, pageBytes))
}
