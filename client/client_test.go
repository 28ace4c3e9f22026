package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"wssgateway/client"
)

func expect(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestMessagesGoBothWays(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	bob := run(t, "bob", n.addr, nil)
	bob.subscribe(t, "room:1")
	alice := run(t, "alice", n.addr, nil).connected(t)
	bob.connected(t)
	late := alice.subscribe(t, "room:1") // while it is connected
	alice.publish(t, "room:1", 0, 3)
	for _, p := range []*person{alice, bob} {
		await(t, "messages", func() bool { return len(p.data("room:1")) == 3 })
		expect(t, "data", p.data("room:1"), numbers(0, 3))
	}
	if id, err := alice.Publish(t.Context(), client.Message{To: "bob", Event: "photo", Binary: true, Bytes: []byte("\x00\xff\n")}); err != nil || id == "" {
		t.Errorf("published %q, %v", id, err)
	}
	await(t, "the photo", func() bool { return len(bob.data("user:bob")) == 1 })
	bob.mu.Lock()
	photo := bob.heard[len(bob.heard)-1]
	bob.mu.Unlock()
	if !photo.Binary || string(photo.Bytes) != "\x00\xff\n" || photo.Event != "photo" || photo.From != "alice" || photo.To != "bob" {
		t.Errorf("photo %+v", photo)
	}
	late.Unsubscribe()
	late.Unsubscribe()
	bob.publish(t, "room:1", 3, 5)
	await(t, "bob's own", func() bool { return len(bob.data("room:1")) == 5 })
	expect(t, "after unsubscribing", alice.data("room:1"), numbers(0, 3))

	messages, complete, err := alice.History(t.Context(), "room:1", "0", 2)
	if err != nil || !complete || len(messages) != 2 || string(messages[1].Data) != "1" || messages[1].From != "alice" {
		t.Errorf("history %+v, %t, %v", messages, complete, err)
	}
	var e *client.Error
	if _, err := alice.Publish(t.Context(), client.Message{Channel: "broadcast", Data: json.RawMessage("1")}); !errors.As(err, &e) || e.Code != "forbidden" {
		t.Errorf("publish to broadcast: %v", err)
	}
	if _, err := alice.Publish(t.Context(), client.Message{Channel: "room:1", Data: json.RawMessage("{")}); err == nil {
		t.Error("what is no JSON was published")
	}
}

func TestClientComesBackToItsSession(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, "a", "b")
	alice := run(t, "alice", nodes[0].addr, nil)
	alice.subscribe(t, "room:1")
	alice.connected(t)
	bob := run(t, "bob", nodes[1].addr, nil).connected(t)
	bob.publish(t, "room:1", 0, 10)
	await(t, "the first", func() bool { return len(alice.data("room:1")) == 10 })
	for round := range 5 {
		alice.way.lead(nodes[(round+1)%2].addr)
		alice.way.cut()
		bob.publish(t, "room:1", 10*(round+1), 10*(round+2))
		await(t, "what was missed", func() bool { return len(alice.data("room:1")) >= 10*(round+2) })
	}
	expect(t, "all", alice.data("room:1"), numbers(0, 60))
	await(t, "news", func() bool {
		return alice.told("connected to a resumed true handover false")+alice.told("connected to b resumed true handover false") == 5
	})
	if alice.told("gap room:1") > 0 || alice.told("disconnected") != 5 {
		t.Errorf("news %q", alice.news)
	}
}

// TestClientMovesBeforeItsNodeGoes: while messages come all the time, nothing is
// lost or comes twice, and there is a connection at every moment.
func TestClientMovesBeforeItsNodeGoes(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, "a", "b")
	var people []*person
	for i := range 10 {
		p := run(t, fmt.Sprint("user-", i), nodes[0].addr, nil)
		p.subscribe(t, "deep:1")
		people = append(people, p.connected(t))
	}
	bob := run(t, "bob", nodes[1].addr, nil).connected(t)
	for _, p := range people {
		p.way.lead(nodes[1].addr)
	}
	var drained sync.WaitGroup
	drained.Go(nodes[0].stop)
	done := make(chan struct{})
	go func() { drained.Wait(); close(done) }()
	published := 0
	for moving := true; moving; published++ {
		bob.publish(t, "deep:1", published, published+1)
		select {
		case <-done:
			moving = false
		default:
		}
	}
	for _, p := range people {
		await(t, "all messages", func() bool { return len(p.data("deep:1")) >= published })
		expect(t, "messages", p.data("deep:1"), numbers(0, published))
		expect(t, "news", p.news, []string{"connected to a resumed false handover false", "connected to b resumed true handover true"})
	}
}

func TestGapsAreTold(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	alice := run(t, "alice", n.addr, nil)
	s := alice.subscribe(t, "small:1")
	alice.connected(t)
	bob := run(t, "bob", n.addr, nil).connected(t)
	bob.publish(t, "small:1", 0, 1)
	await(t, "the first", func() bool { return len(alice.data("small:1")) == 1 })
	position := s.Position()
	alice.way.lead("127.0.0.1:1") // nobody is there
	alice.way.cut()
	await(t, "it is away", func() bool { return alice.told("disconnected") == 1 })
	bob.publish(t, "small:1", 1, 21)
	alice.way.lead(n.addr)
	await(t, "the last", func() bool { all := alice.data("small:1"); return all[len(all)-1] == "20" })
	if alice.told("gap small:1") != 1 {
		t.Errorf("news %q", alice.news)
	}
	all := alice.data("small:1")
	if len(all) > 12 || !slices.Equal(all[1:], numbers(21-len(all)+1, 21)) {
		t.Errorf("got %q: what is left comes in order", all)
	}
	carol := run(t, "carol", n.addr, nil) // from where alice was
	carol.subscribe(t, "small:1", position)
	carol.subscribe(t, "small:2", "0")
	await(t, "the gap", func() bool { return carol.told("gap small:1") == 1 })
	if carol.told("gap small:2") > 0 {
		t.Errorf("news %q", carol.news)
	}
}

func TestPublishIsRepeatedAndStoredOnce(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, "a", "b")
	bob := run(t, "bob", nodes[1].addr, nil)
	bob.subscribe(t, "room:1")
	bob.connected(t)
	alice := run(t, "alice", nodes[0].addr, nil).connected(t)
	cutting, stop := context.WithCancel(t.Context())
	var cuts sync.WaitGroup
	cuts.Go(func() {
		pause, before := 15*time.Millisecond, 0
		for i := 0; cutting.Err() == nil; i++ {
			if all := len(bob.data("room:1")); all == before {
				pause += pause / 2 // on a slow machine nothing gets through in between
			} else {
				pause, before = 15*time.Millisecond, all
			}
			alice.way.lead(nodes[i%2].addr)
			alice.way.cut()
			select {
			case <-time.After(pause):
			case <-cutting.Done():
			}
		}
	})
	const n = 200
	alice.publish(t, "room:1", 0, n)
	stop()
	cuts.Wait()
	await(t, "all", func() bool { return len(bob.data("room:1")) >= n })
	expect(t, "messages", bob.data("room:1"), numbers(0, n))
}

// TestHandlersMayUseTheClient: an echo, which publishes from its handler and waits.
func TestHandlersMayUseTheClient(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	var echoed atomic.Int32 // answered; alice may have the last echo before that
	echo := run(t, "echo", n.addr, func(p *person, o *client.Options) {
		o.Inbox.Message = func(m client.Message) {
			if _, err := p.Publish(t.Context(), client.Message{To: m.From, Data: m.Data}); err != nil {
				t.Errorf("echo: %v", err)
			}
			echoed.Add(1)
		}
	}).connected(t)
	alice := run(t, "alice", n.addr, nil).connected(t)
	for i := range 50 {
		if _, err := alice.Publish(t.Context(), client.Message{To: echo.User(), Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "echoes", func() bool { return echoed.Load() == 50 && len(alice.data("user:alice")) == 50 })
	expect(t, "echoes", alice.data("user:alice"), numbers(0, 50))
}

func TestPresenceIsToldAndAsked(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	alice := run(t, "alice", n.addr, nil)
	alice.subscribe(t, "who:1")
	alice.connected(t)
	bob := run(t, "bob", n.addr, nil)
	bob.subscribe(t, "who:1")
	bob.connected(t)
	await(t, "the join", func() bool { return alice.told("join who:1 bob") == 1 })
	members, count, err := alice.Presence(t.Context(), "who:1")
	if err != nil || count != 2 || !slices.Equal(members, []client.Member{{User: "alice", Sessions: 1}, {User: "bob", Sessions: 1}}) {
		t.Errorf("%v, %d, %v", members, count, err)
	}
	bob.stop() // ends the session
	await(t, "the leave", func() bool { return alice.told("leave who:1 bob") == 1 })
}

func TestAckKeepsThePlaceOfADevice(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	onPhone := func(_ *person, o *client.Options) { o.Device = "phone" }
	alice := run(t, "alice", n.addr, onPhone).connected(t)
	bob := run(t, "bob", n.addr, nil).connected(t)
	send := func(i int) string {
		id, err := bob.Publish(t.Context(), client.Message{To: "alice", Data: fmt.Append(nil, i)})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := send(0)
	if err := alice.Ack(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	alice.stop()
	send(1)
	send(2)
	again := run(t, "alice", n.addr, onPhone)
	await(t, "what was sent meanwhile", func() bool { return len(again.data("user:alice")) == 2 })
	expect(t, "messages", again.data("user:alice"), numbers(1, 3))
}

func TestChannelsThatAreNotAllowedAreRefused(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	alice := run(t, "alice", n.addr, nil)
	alice.subscribe(t, "user:bob")
	alice.subscribe(t, "room:1")
	alice.connected(t)
	await(t, "the refusal", func() bool { return alice.told("refused user:bob forbidden") == 1 })
	alice.publish(t, "room:1", 0, 1)
	await(t, "the other channel", func() bool { return len(alice.data("room:1")) == 1 })
}

// joining returns tokens of alice's that join channels.
func joining(channels ...string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"sub": "alice", "join": channels, "exp": time.Now().Add(time.Hour).Unix(),
		}).SignedString([]byte(secret))
	}
}

// TestUnsubscribedFromAChannelOfTheToken (finding R13): the gateway subscribes to it
// anew with every connection, and the client leaves it again.
func TestUnsubscribedFromAChannelOfTheToken(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	bob := run(t, "bob", n.addr, nil).connected(t)
	alice := run(t, "alice", n.addr, func(_ *person, o *client.Options) { o.Token = joining("who:1", "who:2") })
	sub := alice.subscribe(t, "who:1")
	alice.connected(t)
	members := func(channel string) string {
		all, _, err := bob.Presence(t.Context(), channel)
		return fmt.Sprint(all, err)
	}
	const here, gone = "[{alice 1}] <nil>", "[] <nil>"
	await(t, "a member", func() bool { return members("who:1") == here && members("who:2") == here })
	sub.Unsubscribe()
	await(t, "left", func() bool { return members("who:1") == gone })
	for i := range 2 {
		alice.way.cut()
		await(t, "back", func() bool { return alice.told("connected to a resumed true handover false") == i+1 })
		await(t, "left again", func() bool { return members("who:1") == gone })
		bob.publish(t, "who:1", 10*i, 10*i+5)
		bob.publish(t, "who:2", 10*i, 10*i+5)
		await(t, "messages", func() bool { return len(alice.data("who:2")) == 5*(i+1) })
	}
	if got := alice.data("who:1"); len(got) > 0 {
		t.Errorf("messages %q", got)
	}
	alice.subscribe(t, "who:1") // wanted again
	await(t, "a member again", func() bool { return members("who:1") == here })
	alice.way.cut()
	await(t, "back", func() bool { return alice.told("connected to a resumed true handover false") == 3 })
	bob.publish(t, "who:1", 20, 25)
	await(t, "messages", func() bool { return len(alice.data("who:1")) == 5 })
}

func TestLiveChannels(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	alice := run(t, "alice", n.addr, nil)
	s := alice.subscribe(t, "live:1")
	alice.connected(t)
	alice.publish(t, "live:1", 0, 5)
	await(t, "messages", func() bool { return len(alice.data("live:1")) == 5 })
	if s.Position() != "" {
		t.Errorf("position %q", s.Position())
	}
}

func TestTokenIsReplacedInTime(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	alice := run(t, "alice", n.addr, func(p *person, o *client.Options) {
		o.Token = func(context.Context) (string, error) {
			if p.tokens.Add(1) == 1 {
				return token("alice", 31*time.Second), nil // soon too old to go on with
			}
			return token("alice", time.Hour), nil
		}
	}).connected(t)
	await(t, "a second token", func() bool { return alice.tokens.Load() == 2 })
	alice.publish(t, "room:1", 0, 1)
	if alice.told("disconnected") > 0 {
		t.Error("it was disconnected")
	}
}

func TestRefusedTokenIsReplaced(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	alice := run(t, "alice", n.addr, func(p *person, o *client.Options) {
		o.Token = func(context.Context) (string, error) {
			if p.tokens.Add(1) < 3 {
				return "nonsense", nil
			}
			return token("alice", time.Hour), nil
		}
	}).connected(t)
	if got := alice.tokens.Load(); got != 3 {
		t.Errorf("asked for %d tokens", got)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	source := func(context.Context) (string, error) { return "", nil }
	for _, address := range []string{"", "http://gateway/ws", "ws://", "::"} {
		if _, err := client.New(address, client.Options{Token: source}); err == nil {
			t.Errorf("%q is taken for an address", address)
		}
	}
	// With these the gateway connects with the handshake, and of several handshakes one
	// would take the session from another.
	for _, query := range []string{"connect", "session=s_1", "device=phone", "a=b&channel=room:1@5-0"} {
		if _, err := client.New("ws://gateway/ws?"+query, client.Options{Token: source}); err == nil {
			t.Errorf("%q connects twice", query)
		}
	}
	if _, err := client.New("ws://gateway/ws?tenant=a", client.Options{Token: source}); err != nil {
		t.Error(err)
	}
	if _, err := client.New("ws://gateway/ws", client.Options{}); err == nil {
		t.Error("no token is needed")
	}
}

func TestWhatIsAskedAfterTheEndFails(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	alice := run(t, "alice", n.addr, nil).connected(t)
	alice.stop()
	if err := <-alice.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := alice.Publish(t.Context(), client.Message{Channel: "room:1", Data: json.RawMessage("1")}); !errors.Is(err, client.ErrStopped) {
		t.Errorf("publish: %v", err)
	}
}
