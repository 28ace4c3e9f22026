package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"wssgateway/examples/lab"
	"wssgateway/gateway/wire"
)

// client is a user's WebSocket client. It keeps what it received, and the
// positions from which it goes on.
type client struct {
	user      string
	session   string
	resumed   bool
	recovered map[string]bool
	conn      *websocket.Conn

	mu       sync.Mutex // guards what follows
	received map[string][]message
	resets   int
}

type message struct {
	ID    string          `json:"id"`
	From  string          `json:"from"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// connected is the gateway's reply to a connect request.
type connected struct {
	Session  string
	Resumed  bool
	Channels map[string]struct{ Recovered bool }
}

// connect connects a new client to a gateway.
func connect(ctx context.Context, user string, g *lab.Node) (*client, error) {
	c := &client{user: user, received: make(map[string][]message)}
	return c, c.resume(ctx, g)
}

// resume connects to a gateway, with the session and the positions if there are
// any.
func (c *client) resume(ctx context.Context, g *lab.Node) error {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": c.user, "subscribe": []string{"room:*"}, "publish": []string{"user:*"},
	}).SignedString([]byte(lab.Secret))
	if err != nil {
		return err
	}
	query := url.Values{"access_token": {token}, "session": {c.session}}
	for _, channel := range []string{room, wire.Inbox(c.user)} {
		if last := c.last(channel); last != "" {
			channel += "@" + last
		}
		query.Add("channel", channel)
	}
	c.conn, _, err = websocket.Dial(ctx, "ws://"+g.Public+"/ws?"+query.Encode(), nil) //nolint:bodyclose // Dial does
	if err != nil {
		return fmt.Errorf("%s connects: %w", c.user, err)
	}
	_, frame, err := c.conn.Read(ctx)
	if err != nil {
		return fmt.Errorf("%s connects: %w", c.user, err)
	}
	var reply connected
	if err := json.Unmarshal(frame, &reply); err != nil || reply.Session == "" {
		return fmt.Errorf("%s connects: got %s", c.user, frame)
	}
	c.session, c.resumed, c.recovered = reply.Session, reply.Resumed, make(map[string]bool)
	for name, channel := range reply.Channels {
		c.recovered[name] = channel.Recovered
	}
	go c.receive(ctx, c.conn)
	return nil
}

// receive keeps what comes until the connection ends.
func (c *client) receive(ctx context.Context, conn *websocket.Conn) {
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			return
		}
		var f struct {
			message
			Type, Channel string
		}
		if json.Unmarshal(frame, &f) != nil {
			continue
		}
		c.mu.Lock()
		switch f.Type {
		case "message":
			c.received[f.Channel] = append(c.received[f.Channel], f.message)
		case "reset":
			c.resets++
		}
		c.mu.Unlock()
	}
}

// last returns the id of the last message of a channel.
func (c *client) last(channel string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if got := c.received[channel]; len(got) > 0 {
		return got[len(got)-1].ID
	}
	return ""
}

// position returns how many messages of the room have come.
func (c *client) position() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.received[room])
}

// tell sends a note to another user.
func (c *client) tell(ctx context.Context, to string, n int) error {
	frame := fmt.Sprintf(`{"type":"publish","to":%q,"event":"note","data":%d}`, to, n)
	return c.conn.Write(ctx, websocket.MessageText, []byte(frame))
}

// awaitNotes waits for n notes and checks their order.
func (c *client) awaitNotes(ctx context.Context, n int) error {
	for {
		c.mu.Lock()
		notes := slices.Clone(c.received[wire.Inbox(c.user)])
		c.mu.Unlock()
		for i, m := range notes {
			if string(m.Data) != fmt.Sprint(i) {
				return fmt.Errorf("note %d of %s is %s", i, c.user, m.Data)
			}
		}
		if len(notes) >= n {
			return nil
		}
		if err := lab.Pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("%s has %d of %d notes: %w", c.user, len(notes), n, err)
		}
	}
}

// result is what a client got of a channel, against what was published.
type result struct{ received, lost, repeated, disordered int }

// compare waits until the last of ids has come and compares.
func (c *client) compare(ctx context.Context, channel string, ids []string) (result, error) {
	for c.last(channel) != ids[len(ids)-1] {
		if err := lab.Pause(ctx, time.Millisecond); err != nil {
			return result{}, fmt.Errorf("%s waits for the last message of %s: %w", c.user, channel, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var r result
	var got []string
	seen := make(map[string]bool)
	for _, m := range c.received[channel] {
		switch {
		case m.Event != "story":
		case seen[m.ID]:
			r.repeated++
		default:
			seen[m.ID] = true
			got = append(got, m.ID)
		}
	}
	r.received = len(got)
	place := make(map[string]int, len(ids))
	for i, id := range ids {
		place[id] = i
		if !seen[id] {
			r.lost++
		}
	}
	for i := 1; i < len(got); i++ {
		if place[got[i]] < place[got[i-1]] {
			r.disordered++
		}
	}
	return r, nil
}
