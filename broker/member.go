package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Membership is a session's on a channel. Who has members hears of users that
// come and go, in one order on all nodes, by messages on that same channel:
// gaps in them are filled or told like any.
type Membership struct {
	Channel    string
	Session    string
	User       string
	Generation uint64 // of the session; an older one than is known changes nothing
	// Payload is what is published if the user comes with this session. That the
	// user has gone is told by Depart, no sooner than Patience after Leave.
	Payload   []byte
	Patience  time.Duration
	Retention Retention
}

// AnyGeneration is a generation that no session has reached.
const AnyGeneration = 1 << 53 // the last that a double, and so Lua, counts to

// Enter makes a session a member. It reports whether its user has come: has no
// other session there, and is not one who has left and was not told of. Repeating
// it changes nothing.
func (b *Broker) Enter(ctx context.Context, m Membership) (came bool, err error) {
	return b.member(ctx, "enter", m)
}

// Leave ends a membership. It reports whether it was the user's last: then the
// user is one of the Departures to come, unless it is back by then. Repeating it
// changes nothing.
func (b *Broker) Leave(ctx context.Context, m Membership) (last bool, err error) {
	return b.member(ctx, "leave", m)
}

func (b *Broker) member(ctx context.Context, what string, m Membership) (bool, error) {
	keys := append(b.layout.stored(m.Channel), b.layout.members(m.Channel), b.layout.users(m.Channel),
		b.layout.leaving(b.layout.laneOf(m.Channel)))
	args := append(make([]any, 0, 14), what, m.Session, m.User, m.Generation,
		m.Channel, m.Patience.Milliseconds(), m.Payload)
	reply, err := b.batch.eval(ctx, memberScript, keys, b.storing(args, m.Channel, m.Retention)...)
	if err != nil {
		return false, fmt.Errorf("broker: %s: %w", what, err)
	}
	return reply == int64(1), nil
}

// Users returns the users of a channel's members, with how many sessions each
// has there: none, if the last one has left and that was not told yet.
func (b *Broker) Users(ctx context.Context, channel string) (map[string]int, error) {
	fields, err := b.hash(ctx, b.layout.users(channel))
	if err != nil {
		return nil, fmt.Errorf("broker: users: %w", err)
	}
	users := make(map[string]int, len(fields))
	for user, sessions := range fields {
		if users[user], err = strconv.Atoi(sessions); err != nil {
			return nil, fmt.Errorf("broker: users: %w", err)
		}
	}
	return users, nil
}

// Members returns the members of a channel, each with its session, user and
// generation alone.
func (b *Broker) Members(ctx context.Context, channel string) ([]Membership, error) {
	fields, err := b.hash(ctx, b.layout.members(channel))
	if err != nil {
		return nil, fmt.Errorf("broker: members: %w", err)
	}
	members := make([]Membership, 0, len(fields))
	for session, member := range fields {
		m := Membership{Channel: channel, Session: session}
		generation, user, _ := strings.Cut(member, " ")
		if m.Generation, err = strconv.ParseUint(generation, 10, 64); err != nil {
			return nil, fmt.Errorf("broker: members: %w", err)
		}
		m.User = user
		members = append(members, m)
	}
	return members, nil
}

func (b *Broker) hash(ctx context.Context, key string) (map[string]string, error) {
	reply, err := b.batch.do(ctx, "HGETALL", key)
	if err != nil {
		return nil, err
	}
	list, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("unexpected reply %T", reply)
	}
	fields := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		value, _ := list[i+1].(string)
		fields[name] = value
	}
	return fields, nil
}

// Alone reports whether the caller is the first of all nodes, for a while, to
// ask for a channel: whoever is does what one of them has to do.
func (b *Broker) Alone(ctx context.Context, channel string, while time.Duration) (bool, error) {
	key := b.layout.tag(b.layout.laneOf(channel)) + "alone:" + channel
	reply, err := b.batch.do(ctx, "SET", key, "1", "NX", "PX", while.Milliseconds())
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("broker: alone: %w", err)
	}
	return reply == "OK", nil
}
