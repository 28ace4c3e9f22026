package attack

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
)

// What the attackers use, and the run provides.
const (
	// BigChannels is how many channels big:0, big:1, … there are, each with
	// BigMessages messages of nearly 64 KiB.
	BigChannels = 4
	// BigMessages is how many messages they have.
	BigMessages = 110
	// BusyChannels is how many channels busy:0, busy:1, … there are.
	BusyChannels = 20
	// Lobby is a channel with presence.
	Lobby = "lobby:0"
	// Stream is the part before the dot of the event of calls that a backend answers.
	Stream = "orders"
)

// asking is a user who sends requests, and comes again when it is closed.
type asking struct {
	user      string
	channels  []string
	perSecond float64
	request   func(i int64) string
}

func (f *front) ask(ctx context.Context, a asking) {
	asking := newPace(a.perSecond)
	var i atomic.Int64
	for coming := newPace(2); coming.wait(ctx, 1); {
		f.floodOnce(ctx, flood{reads: true, way: way{user: a.user, channels: a.channels}}, func(p *peer) error {
			if !asking.wait(ctx, 1) {
				return ctx.Err()
			}
			return p.send(1, message(a.request(i.Add(1))))
		})
	}
}

func histories() []Attack {
	const all = `"channel":"big:0","since":"0","limit":1000}`
	return []Attack{{
		Name:      "histories without ref",
		About:     "1 user, 50/s, each of 6.5 MB to be read for nobody",
		PerSecond: 10,
		Wants:     []string{"connected"},
		run: func(ctx context.Context, f *front) {
			f.ask(ctx, asking{user: "mallory-blind", perSecond: 50, request: func(int64) string { return `{"type":"history",` + all }})
		},
	}, {
		Name:      "histories",
		About:     "1 user, 5/s, each of 6.5 MB of which 512 KiB can be answered",
		PerSecond: 1,
		Wants:     []string{"history"},
		run: func(ctx context.Context, f *front) {
			f.ask(ctx, asking{user: "mallory-reads", perSecond: 5, request: func(i int64) string { return fmt.Sprintf(`{"type":"history","ref":%d,`, i) + all }})
		},
	}}
}

func calls() []Attack {
	return []Attack{{
		Name:      "calls of no stream",
		About:     "2 users: one 40/s of 200 streams that no backend has made, one 10/s of 48 kB without ref",
		PerSecond: 10,
		Wants:     []string{"error not_found"},
		Never:     []string{"error timeout"},
		run: func(ctx context.Context, f *front) {
			big := strings.Repeat("x", 48_000)
			each(2, func(i int) {
				f.ask(ctx, []asking{
					{user: "mallory-names", perSecond: 40, request: func(i int64) string { return fmt.Sprintf(`{"type":"call","ref":%d,"event":"x%d.y"}`, i, i%200) }},
					{user: "mallory-fills", perSecond: 10, request: func(i int64) string { return fmt.Sprintf(`{"type":"call","event":"fill%d.y","data":%q}`, i%10, big) }},
				}[i])
			})
		},
	}, {
		Name:      "calls",
		About:     "1 user, 50/s of 4 kB to the stream of a backend that answers",
		PerSecond: 10,
		Wants:     []string{"reply"},
		run: func(ctx context.Context, f *front) {
			data := strings.Repeat("x", 4000)
			f.ask(ctx, asking{user: "mallory-calls", perSecond: 50, request: func(i int64) string {
				return fmt.Sprintf(`{"type":"call","ref":%d,"event":"%s.flood","data":%q}`, i, Stream, data)
			}})
		},
	}}
}

func presences() []Attack {
	return []Attack{{
		Name:      "presences",
		About:     "2 users, 80/s each",
		PerSecond: 10,
		Wants:     []string{"presence"},
		run: func(ctx context.Context, f *front) {
			each(2, func(i int) {
				f.ask(ctx, asking{user: fmt.Sprint("mallory-presence-", i), perSecond: 80, request: func(i int64) string {
					return fmt.Sprintf(`{"type":"presence","ref":%d,"channel":"%s"}`, i, Lobby)
				}})
			})
		},
	}, {
		Name:      "comings and goings",
		About:     "2 users, each 20/s subscribes to a channel with presence and leaves it again",
		PerSecond: 10,
		Wants:     []string{"subscribed"},
		run: func(ctx context.Context, f *front) {
			const both = `[{"type":"subscribe","channel":"` + Lobby + `"},{"type":"unsubscribe","channel":"` + Lobby + `"}]`
			each(2, func(i int) {
				f.ask(ctx, asking{user: fmt.Sprint(Flapping, i), perSecond: 20, request: func(int64) string { return both }})
			})
		},
	}}
}

// Flapping begins the names of the users who come and go.
const Flapping = "mallory-flaps-"
