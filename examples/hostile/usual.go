package main

import (
	"context"
	"encoding/json"

	"wssgateway/client"
	"wssgateway/examples/hostile/attack"
)

// usual is a member with the client of this repository. It looks on at the lobby,
// too.
type usual struct{ client *client.Client }

func newUsual(m *member, addr string) (*usual, error) {
	c, err := client.New("ws://"+addr+"/ws", client.Options{
		Token:        m.token,
		Disconnected: func(d client.Disconnected) { m.wasClosed(d.Err) },
	})
	if err != nil {
		return nil, err
	}
	h := client.Handler{
		Message: func(msg client.Message) { m.take(msg.Channel, msg.ID, msg.Data) },
		Gap:     func(string, string) { m.gap() },
		Joined:  func(_, user string) { m.presence(user) },
		Left:    func(_, user string) { m.presence(user) },
	}
	for _, channel := range append([]string{attack.Lobby}, m.channels...) {
		if _, err := c.Subscribe(channel, h); err != nil {
			return nil, err
		}
	}
	return &usual{c}, nil
}

func (u *usual) run(ctx context.Context) error { return u.client.Run(ctx) }

func (u *usual) awaitConnected(ctx context.Context) error { return u.client.AwaitConnected(ctx) }

func (u *usual) publish(ctx context.Context, channel string, data []byte, binary bool) error {
	m := client.Message{Channel: channel, Event: "note", Data: data}
	if binary {
		m = client.Message{Channel: channel, Event: "note", Bytes: data, Binary: true}
	}
	_, err := u.client.Publish(ctx, m)
	return err
}

// call has the backend do something.
func (u *usual) call(ctx context.Context) error {
	_, err := u.client.Call(ctx, attack.Stream+".create", json.RawMessage(`{"sku":1}`))
	return err
}
