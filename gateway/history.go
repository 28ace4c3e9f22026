package gateway

import (
	"context"
	"slices"
	"strings"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

const (
	historyDefault = 50 // messages, if the request has no limit
	// historyBytes bounds a reply: it ends early rather than fill the outbox.
	historyBytes = 512 << 10
)

// history answers with what is kept of a channel after a position, or with the last of
// what is before one.
func (c *conn) history(ctx context.Context, r wire.Request) error {
	if err := checkChannel(r.Channel); err != nil {
		return err
	}
	p, ok := parsePosition(r.Since)
	if !ok {
		return mistake(wire.BadRequest, "since: is not a position")
	}
	before, err := historyBefore(r)
	if err != nil {
		return err
	}
	if !c.grant.Load().maySubscribe(&c.gw.cfg, r.Channel) {
		return mistake(wire.Forbidden, "you may not read this channel")
	}
	if c.gw.cfg.class(r.Channel).History.Size == 0 {
		return mistake(wire.NotFound, "this channel has no history")
	}
	if r.Ref == "" {
		return nil // nobody wants the answer
	}
	if r.Limit == 0 {
		r.Limit = historyDefault
	}
	free, err := c.gw.reserve(ctx, 3*historyBytes+c.gw.pageCost())
	if err != nil {
		return mistake(wire.Unavailable, "cannot read now, try again")
	}
	defer free()
	o := wire.NewObject("history", r.Ref).Str("channel", r.Channel)
	if r.Back {
		messages, more, err := c.gw.readHistoryBack(ctx, r.Channel, before, r.Limit)
		if err != nil {
			return mistake(wire.Unavailable, "cannot read now, try again")
		}
		c.send(o.Raw("messages", messages).Bool("more", more))
		return nil
	}
	h, err := c.gw.readHistory(ctx, r.Channel, p, r.Limit)
	if err != nil {
		return mistake(wire.Unavailable, "cannot read now, try again")
	}
	c.send(o.Raw("messages", string(h.messages)+"]").Bool("recovered", h.recovered))
	return nil
}

// historyBefore returns before what messages are asked for, if they are.
func historyBefore(r wire.Request) (broker.ID, error) {
	switch {
	case r.Back && r.Since != "":
		return broker.ID{}, mistake(wire.BadRequest, "since and before: give one of them")
	case r.Before == "":
		return broker.MaxID, nil
	}
	id, err := broker.ParseID(r.Before)
	if err != nil {
		return id, mistake(wire.BadRequest, "before: is not the id of a message")
	}
	return id, nil
}

// readHistoryBack returns up to limit messages before a position, and fewer if they
// are large, as a JSON array, oldest first. more: there are older ones.
func (g *Gateway) readHistoryBack(ctx context.Context, channel string, before broker.ID, limit int) (array string, more bool, err error) {
	var elements []string // newest first
	size := 0
	more = true
	for more && len(elements) < limit && size < historyBytes {
		page, err := g.readPageBack(ctx, channel, before, limit-len(elements), historyBytes-size)
		if err != nil {
			return "", false, err
		}
		for _, m := range page.Messages {
			before = m.ID
			element, err := appendHistory(nil, m)
			if err != nil {
				g.hub.refuse(channel, err)
				continue
			}
			size += len(element)
			elements = append(elements, string(element))
		}
		more = page.More
	}
	if more { // a bound has ended it, which may have been at the oldest one
		page, err := g.readPageBack(ctx, channel, before, 1, 1)
		if err != nil {
			return "", false, err
		}
		more = len(page.Messages) > 0
	}
	slices.Reverse(elements)
	return "[" + strings.Join(elements, ",") + "]", more, nil
}

// history is what is read of a channel to answer a request.
type history struct {
	channel   string
	messages  []byte // a JSON array, still open
	after     broker.ID
	follows   bool // the next message must follow on after
	recovered bool // nothing between the position and the last message is gone
}

// readHistory reads up to limit messages after a position, and fewer if they are
// large.
func (g *Gateway) readHistory(ctx context.Context, channel string, p position, limit int) (*history, error) {
	h := &history{channel: channel, messages: []byte{'['}, recovered: true}
	var last broker.ID // where the channel stood before it was read
	if p.given && !p.all {
		head, err := g.broker.Head(ctx, channel, p.id)
		if err != nil {
			return nil, err
		}
		last, h.after, h.follows, h.recovered = head.Last, p.id, true, head.Recovered
	}
	for limit > 0 && len(h.messages) < historyBytes {
		page, err := g.readPage(ctx, channel, h.after, limit, historyBytes-len(h.messages))
		if err != nil {
			return nil, err
		}
		for _, m := range page.Messages {
			h.add(g, m)
		}
		if limit -= len(page.Messages); !page.More {
			// What the head has promised, and is not there any more, has expired.
			h.recovered = h.recovered && h.after.Compare(last) >= 0
			break
		}
	}
	return h, nil
}

// add takes in the next message. Its predecessor must be the one before it here:
// else messages have been trimmed, since the channel was asked where it stands or
// between two pages.
func (h *history) add(g *Gateway, m broker.Message) {
	if h.follows && m.Prev != h.after {
		h.recovered = false
	}
	h.after, h.follows = m.ID, true
	var err error
	if h.messages, err = appendElement(h.messages, m); err != nil {
		g.hub.refuse(h.channel, err)
	}
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
