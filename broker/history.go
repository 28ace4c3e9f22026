package broker

import (
	"context"
	"fmt"
)

// Head says where a channel stands.
type Head struct {
	Last ID // of its last message
	// Recovered: nothing after the position asked about is gone.
	Recovered bool
}

// Head returns where a channel with history stands, and whether all that came
// after since is still there. On data that have only just begun it waits, before it
// vouches for 0-0, for every node to say that it knew no others.
func (b *Broker) Head(ctx context.Context, channel string, since ID) (Head, error) {
	l := b.lane(channel)
	h, unsure, err := b.head(ctx, channel, since)
	if err == nil && unsure && l.life.awaitSure(ctx) { // else it is not vouched for
		h, _, err = b.head(ctx, channel, since)
	}
	if err != nil {
		return Head{}, fmt.Errorf("broker: head: %w", err)
	}
	return h, nil
}

// head asks once. Unsure: the answer depends on whether the lane's epoch is the
// first, and the lane does not know that yet.
func (b *Broker) head(ctx context.Context, channel string, since ID) (h Head, unsure bool, err error) {
	l := b.lane(channel)
	keys := []string{b.layout.stream(channel), b.layout.meta(channel), b.layout.epoch(l.number)}
	epoch, _ := l.life.known()
	trust := "new"
	if l.life.isSure() {
		trust = "sure"
	}
	reply, err := l.batch.eval(ctx, headScript, keys,
		since.String(), epoch, l.floor.get().String(), trust, epochDoubt.Milliseconds())
	if err != nil {
		return Head{}, false, err
	}
	list, ok := reply.([]any)
	if !ok || len(list) != 3 {
		return Head{}, false, fmt.Errorf("unexpected reply %v", reply)
	}
	last, _ := list[0].(string)
	h.Recovered = list[1] == int64(1)
	h.Last, err = ParseID(last)
	return h, list[2] == int64(1), err
}

// Read returns up to limit messages after a position, oldest first. They follow
// on that position without a gap if, and only if, the first one's Prev is it.
func (b *Broker) Read(ctx context.Context, channel string, after ID, limit int) ([]Message, error) {
	if after == MaxID {
		return nil, nil // to Redis, "after the last one" is a syntax error
	}
	reply, err := b.batch.do(ctx, "XRANGE", b.layout.stream(channel), "("+after.String(), "+", "COUNT", limit)
	if err != nil {
		return nil, fmt.Errorf("broker: read: %w", err)
	}
	messages, err := parseEntries(reply)
	if err != nil {
		return nil, fmt.Errorf("broker: read: %w", err)
	}
	return messages, nil
}

// Page is a part of what is kept of a channel.
type Page struct {
	Messages []Message
	More     bool // there may be messages after the last one
}

// ReadPage is Read for who must not have more than so much in memory: a page ends
// with the message that reaches the bytes.
func (b *Broker) ReadPage(ctx context.Context, channel string, after ID, limit, bytes int) (Page, error) {
	if after == MaxID {
		return Page{}, nil
	}
	return b.readPage(ctx, channel, "XRANGE", "("+after.String(), "+", limit, bytes)
}

// ReadPageBack is ReadPage for what is before a position, newest first. MaxID stands
// for the end of the channel.
func (b *Broker) ReadPageBack(ctx context.Context, channel string, before ID, limit, bytes int) (Page, error) {
	from := "+"
	switch before {
	case ID{}:
		return Page{}, nil
	case MaxID:
	default:
		from = "(" + before.String()
	}
	return b.readPage(ctx, channel, "XREVRANGE", from, "-", limit, bytes)
}

func (b *Broker) readPage(ctx context.Context, channel, command, from, to string, limit, bytes int) (Page, error) {
	reply, err := b.batch.eval(ctx, pageScript, []string{b.layout.stream(channel)}, command, from, to, limit, bytes)
	if err != nil {
		return Page{}, fmt.Errorf("broker: read page: %w", err)
	}
	parts, _ := reply.([]any)
	if len(parts) != 2 {
		return Page{}, fmt.Errorf("broker: read page: unexpected reply %T", reply)
	}
	messages, err := parseEntries(parts[0])
	if err != nil {
		return Page{}, fmt.Errorf("broker: read page: %w", err)
	}
	return Page{Messages: messages, More: parts[1] == int64(1)}, nil
}

func parseEntries(reply any) ([]Message, error) {
	entries, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("unexpected reply %T", reply)
	}
	messages := make([]Message, 0, len(entries))
	for _, e := range entries {
		m, err := parseEntry(e)
		if err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// parseEntry parses a stream entry as publish.lua writes it: [id, [field, value, …]].
func parseEntry(entry any) (Message, error) {
	pair, _ := entry.([]any)
	if len(pair) != 2 {
		return Message{}, fmt.Errorf("unexpected entry %v", entry)
	}
	var m Message
	var err error
	id, _ := pair[0].(string)
	if m.ID, err = ParseID(id); err != nil {
		return Message{}, err
	}
	fields, _ := pair[1].([]any)
	for i := 0; i+1 < len(fields); i += 2 {
		value, _ := fields[i+1].(string)
		switch fields[i] {
		case "p":
			if m.Prev, err = ParseID(value); err != nil {
				return Message{}, err
			}
		case "m":
			m.Payload = value
		}
	}
	return m, nil
}
