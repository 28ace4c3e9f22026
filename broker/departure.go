package broker

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Departure is a user whose last session has left a channel, and has not come back
// in the time that Leave was given.
type Departure struct {
	Channel, User string
	ticket        string // whose it is to tell
}

// departureBatch is how many users are taken of a lane at a time.
const departureBatch = 256

// Lanes returns the number of lanes, which are asked for departures one by one: in a
// Cluster one of them may be on a server that does not answer.
func (b *Broker) Lanes() int { return b.layout.lanes }

// LaneOf returns the lane of a channel, which all that is done with it goes through.
func (b *Broker) LaneOf(channel string) int { return b.layout.laneOf(channel) }

// Departures takes users of a lane's channels that have departed and of whom nobody has
// told: while they are the caller's, nobody else gets them. Who is not told of by then
// is taken again. It returns up to 256.
func (b *Broker) Departures(ctx context.Context, lane int, while time.Duration) ([]Departure, error) {
	reply, err := b.batch.eval(ctx, departuresScript, []string{b.layout.leaving(lane)}, departureBatch, while.Milliseconds())
	if err != nil {
		return nil, fmt.Errorf("broker: departures: %w", err)
	}
	list, _ := reply.([]any)
	if len(list) == 0 {
		return nil, fmt.Errorf("broker: departures: unexpected reply %T", reply)
	}
	ticket, _ := list[0].(string)
	some := make([]Departure, 0, len(list)-1)
	for _, e := range list[1:] {
		name, _ := e.(string)
		channel, user, _ := strings.Cut(name, " ")
		some = append(some, Departure{channel, user, ticket})
	}
	return some, nil
}

// Depart tells that a user has departed, by a message with this payload. It
// reports false if the user is back, or if it took too long and is another's to tell.
func (b *Broker) Depart(ctx context.Context, d Departure, payload []byte, r Retention) (told bool, err error) {
	keys := append(b.layout.stored(d.Channel), b.layout.users(d.Channel), b.layout.leaving(b.layout.laneOf(d.Channel)))
	args := append(make([]any, 0, 11), d.Channel, d.User, d.ticket, payload)
	reply, err := b.batch.eval(ctx, departScript, keys, b.storing(args, d.Channel, r)...)
	if err != nil {
		return false, fmt.Errorf("broker: depart: %w", err)
	}
	return reply == int64(1), nil
}
