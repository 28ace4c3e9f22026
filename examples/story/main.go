// Command story starts a redis-server and two gateways as processes of their
// own, puts a client on each, kills one gateway with SIGKILL in the middle of
// things, and says what became of the messages. It exits with 1 if one was lost,
// repeated or out of order.
//
//	go run ./examples/story
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := tell(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "story:", err)
		os.Exit(1)
	}
}

const (
	room   = "room:42"
	before = 500 // messages published before the gateway is killed
	during = 500 // while alice is away
	after  = 500 // once she is back
)

func tell(ctx context.Context) (err error) {
	w, err := newWorld(ctx)
	defer func() { err = errors.Join(err, w.Close()) }()
	if err != nil {
		return err
	}
	one, two := w.Nodes[0], w.Nodes[1]
	say("redis-server %s and two gateways: %s on %s, %s on %s", w.Redis.Version, one.Name, one.Public, two.Name, two.Public)

	alice, err := connect(ctx, "alice", one)
	if err != nil {
		return err
	}
	bob, err := connect(ctx, "bob", two)
	if err != nil {
		return err
	}
	say("alice is on %s, bob on %s; both are in %s", one.Name, two.Name, room)
	if err := direct(ctx, alice, bob); err != nil {
		return err
	}

	publisher := newPublisher(w)
	say("a backend publishes to %s and to alice, through either gateway, as fast as it is answered", room)
	publisher.start(ctx)
	if err := publisher.await(ctx, before); err != nil {
		return err
	}
	if err := one.Kill(); err != nil {
		return err
	}
	lost := alice.position()
	say("kill -9 %s: alice was at message %d of the room; the backend goes on through %s", one.Name, lost, two.Name)
	if err := publisher.await(ctx, before+during); err != nil {
		return err
	}
	start := time.Now()
	if err := alice.resume(ctx, two); err != nil {
		return err
	}
	say("alice is back on %s after %s: resumed %t, room recovered %t, inbox recovered %t", two.Name,
		time.Since(start).Round(time.Millisecond), alice.resumed, alice.recovered[room], alice.recovered["user:alice"])
	if err := publisher.await(ctx, before+during+after); err != nil {
		return err
	}
	return judge(ctx, publisher.stop(), alice, bob)
}

// direct has alice and bob write to each other.
func direct(ctx context.Context, alice, bob *client) error {
	const notes = 100
	for i := range notes {
		if err := errors.Join(alice.tell(ctx, "bob", i), bob.tell(ctx, "alice", i)); err != nil {
			return err
		}
	}
	if err := errors.Join(alice.awaitNotes(ctx, notes), bob.awaitNotes(ctx, notes)); err != nil {
		return err
	}
	say("they wrote each other %d notes: all there, in order", notes)
	return nil
}

// judge compares what was acknowledged with what arrived.
func judge(ctx context.Context, sent sent, alice, bob *client) error {
	say("%d messages were acknowledged in the room, %d to alice; %d calls went to the dead gateway and were repeated",
		len(sent.room), len(sent.inbox), sent.repeated)
	var bad error
	for _, check := range []struct {
		who     *client
		channel string
		ids     []string
	}{{alice, room, sent.room}, {bob, room, sent.room}, {alice, "user:alice", sent.inbox}} {
		result, err := check.who.compare(ctx, check.channel, check.ids)
		if err != nil {
			return err
		}
		say("%-5s %-10s  %4d received, %d lost, %d repeated, %d out of order", check.who.user, check.channel,
			result.received, result.lost, result.repeated, result.disordered)
		if result.lost+result.repeated+result.disordered > 0 {
			bad = errors.New("the promise was broken")
		}
	}
	return bad
}

var began = time.Now()

func say(format string, args ...any) {
	fmt.Printf("%6.2fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
