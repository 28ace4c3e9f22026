package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"wssgateway/client"
	"wssgateway/examples/lab"
	"wssgateway/gateway/wire"
)

// member is one client, and what happened to it.
type member struct {
	user     string
	channels []string // its inbox and two rooms
	client   *client.Client

	mu       sync.Mutex // guards what follows
	node     string
	lostAt   time.Time // when there was no connection any more; zero: there is one
	joined   []joined
	gapsTold int
	got      map[string][]lab.Got
}

// joined is a connection.
type joined struct {
	at  time.Time
	gap time.Duration // without a connection before it
}

func newMember(w *world, i int) (*member, error) {
	m := &member{user: fmt.Sprint("user-", i), got: make(map[string][]lab.Got)}
	rooms := []string{w.room(i), w.room(i*7 + 1)}
	m.channels = append([]string{wire.Inbox(m.user)}, rooms...)
	h := client.Handler{Message: m.message, Gap: func(string, string) { m.gapsTold++ }}
	var err error
	m.client, err = client.New("ws://gateway/ws", client.Options{
		Token:        func(context.Context) (string, error) { return lab.Token(m.user) },
		HTTPClient:   w.balancer.client(),
		NoHandover:   w.scenario.stay,
		Inbox:        h,
		Connected:    m.connected,
		Disconnected: m.disconnected,
	})
	if err != nil {
		return nil, err
	}
	for _, room := range rooms {
		if _, err := m.client.Subscribe(room, h); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *member) connected(c client.Connected) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := joined{at: c.At}
	if !m.lostAt.IsZero() {
		j.gap = c.At.Sub(m.lostAt)
	}
	m.lostAt = time.Time{}
	m.node = c.Node
	m.joined = append(m.joined, j)
}

func (m *member) disconnected(d client.Disconnected) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !d.At.IsZero() {
		m.lostAt = d.At
	}
}

func (m *member) message(msg client.Message) {
	now := time.Now()
	var n lab.Note
	if err := json.Unmarshal(msg.Data, &n); err != nil {
		n.N = -1 // counts as one that nobody published
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got[msg.Channel] = append(m.got[msg.Channel],
		lab.Got{N: n.N, ID: msg.ID, Latency: now.Sub(time.UnixMicro(n.At)), At: now})
}

// on reports whether the member is connected to a node.
func (m *member) on(node string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node == node && m.lostAt.IsZero()
}

// isConnected reports whether the member has a connection.
func (m *member) isConnected() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lostAt.IsZero()
}

// has returns how many messages of its channels the member has.
func (m *member) has() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, list := range m.got {
		n += len(list)
	}
	return n
}
