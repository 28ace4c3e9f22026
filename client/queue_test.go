package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"wssgateway/client"
)

const gapWelcome = `{"type":"connected","ref":1,"session":"s_1","user":"alice","node":"scripted","resumed":false,"ping":2,"channels":{"room:1":{"last":"9000000-0","recovered":false}}}`

// replaying sends a replay, and answers requests behind it.
func replaying(messages, size int) script {
	return func(_ *testing.T, conn *websocket.Conn) {
		if _, _, err := conn.Read(context.Background()); err != nil {
			return
		}
		say(conn, "%s", gapWelcome)
		padding := strings.Repeat("x", size)
		for i := range messages {
			if conn.Write(context.Background(), websocket.MessageBinary, fmt.Appendf(nil, `{"type":"message","channel":"room:1","id":"%d-0"}`+"\n%s", 1000+i, padding)) != nil {
				return
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { // as was promised
			for conn.Ping(ctx) == nil {
				within(time.Second, ctx.Done())
			}
		}()
		answering(conn)
	}
}

// answering answers requests until the client has gone.
func answering(conn *websocket.Conn) {
	for {
		_, b, err := conn.Read(context.Background())
		var f struct {
			Type, Channel string
			Ref           int
		}
		if err != nil || json.Unmarshal(b, &f) != nil {
			return
		}
		switch f.Type {
		case "history":
			say(conn, `{"type":"history","ref":%d,"channel":"room:1","messages":[],"recovered":true}`, f.Ref)
		case "publish":
			say(conn, `{"type":"published","ref":%d,"id":"9000001-0"}`, f.Ref)
		case "subscribe":
			say(conn, `{"type":"subscribed","ref":%d,"channel":%q,"last":"0-0","recovered":true}`, f.Ref, f.Channel)
		case "unsubscribe":
			say(conn, `{"type":"unsubscribed","ref":%d,"channel":%q}`, f.Ref, f.Channel)
		default:
			say(conn, `{"type":"acked","ref":%d}`, f.Ref)
		}
	}
}

// TestHandlersMayAskWhateverIsQueued (finding A6): the answer comes behind more than
// may wait for a handler.
func TestHandlersMayAskWhateverIsQueued(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*person) error{
		"history": func(p *person) error {
			_, _, err := p.History(context.Background(), "room:1", "0", 100)
			return err
		},
		"publish": func(p *person) error {
			_, err := p.Publish(context.Background(), client.Message{Channel: "room:1", Data: json.RawMessage("1")})
			return err
		},
		"ack": func(p *person) error { return p.Ack(context.Background(), "1-0") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const messages = 3000
				m := serveMemory(t, scripted(t, replaying(messages, 10)))
				asked := make(chan error, 1)
				var handled atomic.Int32
				p := run(t, "alice", "", m.over(nil))
				_, err := p.Subscribe("room:1", client.Handler{
					Message: func(client.Message) { handled.Add(1) },
					Gap:     func(string, string) { asked <- ask(p) },
				}, "500-0")
				if err != nil {
					t.Fatal(err)
				}
				if err, ok := within(time.Second, asked); !ok || err != nil {
					t.Fatalf("answered: %t, %v", ok, err)
				}
				synctest.Wait()
				if handled.Load() != messages {
					t.Errorf("handled %d messages", handled.Load())
				}
				start := time.Now()
				p.stop()
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("Run has ended after %v", took)
				}
			})
		})
	}
}

// TestWhoAsksBehindTooMuchIsTold (finding A6): what waits for handlers is bounded
// also while they ask. Nothing is lost.
func TestWhoAsksBehindTooMuchIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const messages, size = 1200, 60_000 // more than 64 MiB
		m := serveMemory(t, scripted(t, replaying(messages, size)))
		asked := make(chan error, 1)
		var handled atomic.Int32
		p := run(t, "alice", "", m.over(nil))
		_, err := p.Subscribe("room:1", client.Handler{
			Message: func(client.Message) { handled.Add(1) },
			Gap: func(string, string) {
				_, _, err := p.History(context.Background(), "room:1", "0", 100)
				asked <- err
			},
		}, "500-0")
		if err != nil {
			t.Fatal(err)
		}
		if err, ok := within(10*time.Second, asked); !ok || !errors.Is(err, client.ErrBehind) {
			t.Fatalf("answered: %t, %v", ok, err)
		}
		synctest.Wait()
		if handled.Load() != messages || p.told("disconnected") > 0 {
			t.Errorf("handled %d messages, news %q", handled.Load(), p.news)
		}
	})
}

// TestSlowHandlersMakeNobodyFail (finding A6): who asks beside a slow handler waits
// for its turn, and the connection is not taken for silent.
func TestSlowHandlersMakeNobodyFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const messages = 3000
		m := serveMemory(t, scripted(t, replaying(messages, 10)))
		handled := make(chan struct{})
		n := 0
		p := run(t, "alice", "", m.over(nil))
		_, err := p.Subscribe("room:1", client.Handler{Message: func(client.Message) {
			time.Sleep(7 * time.Millisecond) // 21 s in all, and 2 s between pings
			if n++; n == messages {
				close(handled)
			}
		}}, "500-0")
		if err != nil {
			t.Fatal(err)
		}
		p.connected(t)
		if _, err := p.Publish(t.Context(), client.Message{Channel: "room:1", Data: json.RawMessage("1")}); err != nil {
			t.Error(err)
		}
		if _, ok := within(time.Minute, handled); !ok || p.told("disconnected") > 0 {
			t.Errorf("handled %d messages, news %q", n, p.news)
		}
	})
}

// TestRunEndsWhateverHandlersDo (finding A6): one that never returns, with more than
// it could ever handle behind it, on a connection that is up or silent.
func TestRunEndsWhateverHandlersDo(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, time.Second, 20 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := serveMemory(t, scripted(t, replaying(3000, 10)))
				stuck := make(chan struct{})
				defer close(stuck)
				began := make(chan struct{}, 3000)
				p := run(t, "alice", "", m.over(func(_ *person, o *client.Options) {
					o.Other.Message = nil
				}))
				if _, err := p.Subscribe("room:1", client.Handler{Message: func(client.Message) { began <- struct{}{}; <-stuck }}, "500-0"); err != nil {
					t.Fatal(err)
				}
				<-began
				time.Sleep(after)
				start := time.Now()
				p.stop()
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("Run has ended after %v", took)
				}
				if _, err := p.Publish(t.Context(), client.Message{Channel: "room:1", Data: json.RawMessage("1")}); !errors.Is(err, client.ErrStopped) {
					t.Errorf("publish: %v", err)
				}
			})
		})
	}
}

// TestRunEndsWhateverTheTokenDoes.
func TestRunEndsWhateverTheTokenDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		defer close(stuck)
		p := run(t, "alice", "", func(_ *person, o *client.Options) {
			o.Token = func(context.Context) (string, error) { <-stuck; return "", nil }
		})
		synctest.Wait()
		p.stop()
	})
}
