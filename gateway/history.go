package gateway

import (
	"context"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

const (
	historyDefault = 50 // messages, if the request has no limit
	// historyBytes bounds a reply: it ends early rather than fill the outbox.
	historyBytes = 512 << 10
)

// history answers with what is kept of a channel after a position.
func (c *conn) history(ctx context.Context, r wire.Request) error {
	if err := checkChannel(r.Channel); err != nil {
		return err
	}
	p, ok := parsePosition(r.Since)
	if !ok {
		return mistake(wire.BadRequest, "since: is not a position")
	}
	if !c.grant.Load().maySubscribe(&c.gw.cfg, r.Channel) {
		return mistake(wire.Forbidden, "you may not read this channel")
	}
	if c.gw.cfg.class(r.Channel).History.Size == 0 {
		return mistake(wire.NotFound, "this channel has no history")
	}
	if r.Limit == 0 {
		r.Limit = historyDefault
	}
	messages, recovered, err := c.gw.readHistory(ctx, r.Channel, p, r.Limit)
	if err != nil {
		return mistake(wire.Unavailable, "cannot read now, try again")
	}
	if r.Ref != "" {
		c.send(wire.NewObject("history", r.Ref).
			Str("channel", r.Channel).
			Raw("messages", string(messages)).
			Bool("recovered", recovered))
	}
	return nil
}

// readHistory returns messages after a position as a JSON array, and whether
// nothing after the position is gone.
func (g *Gateway) readHistory(ctx context.Context, channel string, p position, limit int) (messages []byte, recovered bool, err error) {
	after := broker.ID{}
	recovered = true
	if p.given && !p.all {
		head, err := g.broker.Head(ctx, channel, p.id)
		if err != nil {
			return nil, false, err
		}
		after, recovered = p.id, head.Recovered
	}
	messages = append(messages, '[')
	for limit > 0 && len(messages) < historyBytes {
		page, err := g.broker.Read(ctx, channel, after, min(limit, replayPage))
		if err != nil {
			return nil, false, err
		}
		for _, m := range page {
			if messages, err = appendElement(messages, m); err != nil {
				g.hub.refuse(channel, err)
			}
			after = m.ID
			if len(messages) >= historyBytes {
				break
			}
		}
		if limit -= len(page); len(page) < replayPage {
			break
		}
	}
	return append(messages, ']'), recovered, nil
}

// appendElement appends a message to an array that was begun.
func appendElement(b []byte, m broker.Message) ([]byte, error) {
	start := len(b)
	if b[start-1] != '[' {
		b = append(b, ',')
	}
	b, err := appendHistory(b, m)
	if err != nil {
		return b[:start], err
	}
	return b, nil
}
