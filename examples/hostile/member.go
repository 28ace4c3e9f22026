package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"wssgateway/examples/hostile/attack"
	"wssgateway/examples/lab"
)

const (
	// members is how many good clients there are; compressing of them offer
	// compression and compress whatever they send.
	members, compressing = 50, 20
	// rooms is how many rooms they are spread over.
	rooms = 5
	// perMember is how often each of them publishes.
	perMember = 4 // times a second
	// secrets is a channel that no attacker may subscribe to.
	secrets = "secret:board"
	// publishTimeout is how long an answer may take.
	publishTimeout = 10 * time.Second
)

// speaker is a way to be a client: that of this repository, or a bare WebSocket
// that compresses. It tells its member what comes, and when it is closed.
type speaker interface {
	run(ctx context.Context) error
	awaitConnected(ctx context.Context) error
	publish(ctx context.Context, channel string, data []byte, binary bool) error
}

// member is one good client, and what happened to it.
type member struct {
	user     string
	channels []string
	speaker  speaker
	ledger   *ledger

	mu       sync.Mutex // guards what follows
	closed   []string   // why, each time
	gapsTold int
	flaps    int // joins and leaves of those who flap
	got      map[string][]lab.Got
}

// ledger is what was published by all members.
type ledger struct {
	next   atomic.Int64
	failed atomic.Int64

	mu    sync.Mutex // guards what follows
	acked map[string][]int
	why   error // the last that failed
}

func newMember(w *world, i int) (*member, error) {
	m := &member{user: fmt.Sprint("good-", i), ledger: &w.ledger, got: make(map[string][]lab.Got)}
	m.channels = []string{fmt.Sprint("room:", i%rooms)}
	if i < compressing {
		m.channels = append(m.channels, secrets)
		m.speaker = newBare(m, w.node.Public)
		return m, nil
	}
	c, err := newUsual(m, w.node.Public)
	m.speaker = c
	return m, err
}

// token returns a token of the member.
func (m *member) token(context.Context) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": m.user, "exp": time.Now().Add(time.Hour).Unix(),
		"subscribe": []string{"*"}, "publish": []string{"room:*", "secret:*"},
	}).SignedString([]byte(lab.Secret))
}

// talk publishes to the channels of the member until ctx is done.
func (m *member) talk(ctx context.Context) {
	for i := 0; ; i++ {
		pause := time.Second/perMember/2 + rand.N(time.Second/perMember)
		if lab.Pause(ctx, pause) != nil {
			return
		}
		channel := m.channels[0]
		if i%4 == 3 && len(m.channels) > 1 {
			channel = secrets
		}
		m.ledger.publish(context.WithoutCancel(ctx), m.speaker, channel)
	}
}

// note is the data of a message.
type note struct {
	lab.Note
	Pad string `json:"pad"`
}

// pad makes a message worth compressing.
var pad = strings.Repeat("the good clients talk ", 15)

// publish publishes a message; on the channel of secrets it is binary.
func (l *ledger) publish(ctx context.Context, s speaker, channel string) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	n := int(l.next.Add(1))
	data, err := json.Marshal(note{lab.Note{N: n, At: time.Now().UnixMicro()}, pad})
	if err != nil {
		panic(err) // plain fields
	}
	err = s.publish(ctx, channel, data, channel == secrets)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed.Add(1)
		l.why = err
		return
	}
	l.acked[channel] = append(l.acked[channel], n)
}

// take takes in a message.
func (m *member) take(channel, id string, data []byte) {
	now := time.Now()
	var n note
	if err := json.Unmarshal(data, &n); err != nil || n.Pad != pad {
		n.N = -1 // nobody has published that
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got[channel] = append(m.got[channel],
		lab.Got{N: n.N, ID: id, Latency: now.Sub(time.UnixMicro(n.At)), At: now})
}

func (m *member) gap() { m.mu.Lock(); m.gapsTold++; m.mu.Unlock() }

// presence takes in that a user joined or left.
func (m *member) presence(user string) {
	if !strings.HasPrefix(user, attack.Flapping) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flaps++
}

// wasClosed takes in that the connection has ended.
func (m *member) wasClosed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = append(m.closed, fmt.Sprint(err))
}

// has returns how many messages of a channel the member has.
func (m *member) has(channel string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got[channel])
}

// closings returns why the member was closed, each time.
func (m *member) closings() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}
