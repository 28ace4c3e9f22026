package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"wssgateway/client"
)

// endsWith reports what a client ends with, which is to be a close code, within a time.
func endsWith(t *testing.T, p *person, code int, d time.Duration) {
	t.Helper()
	err, ok := within(d, p.ended)
	var closed *client.CloseError
	if !ok || !errors.As(err, &closed) || closed.Code != code {
		t.Errorf("ended: %t, %v, news %q", ok, err, p.news)
	}
	if ok {
		p.ended <- nil // for the end of the test
	}
}

// TestMovedAfterARefusedConnect (finding R9): what was refused has moved nothing, so a
// 4002 later is of somebody else's doing. Redis that has not answered may have.
func TestMovedAfterARefusedConnect(t *testing.T) {
	t.Parallel()
	refusing := func(code string, closing int) script {
		return func(_ *testing.T, conn *websocket.Conn) {
			_, _, _ = conn.Read(context.Background())
			say(conn, `{"type":"error","ref":1,"code":%q,"message":"no"}`, code)
			_ = conn.Close(websocket.StatusCode(closing), "no")
		}
	}
	for code, closed := range map[string]int{"unauthorized": 4001, "limit_exceeded": 4029} {
		synctest.Test(t, func(t *testing.T) {
			p := run(t, "alice", "", serveMemory(t, scripted(t, refusing(code, closed), closing(4002), staying)).over(nil))
			endsWith(t, p, 4002, 50*time.Second)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		p := run(t, "alice", "", serveMemory(t, scripted(t, refusing("unavailable", 1013), closing(4002), staying)).over(nil))
		pass(50 * time.Second)
		if len(p.ended) > 0 || p.told("connected to scripted resumed false handover false") != 2 {
			t.Errorf("ended: %d, news %q", len(p.ended), p.news)
		}
	})
}

// toMove asks its client to move, and closes when it is told to.
func toMove(code int, when context.Context, closed func()) script {
	return func(t *testing.T, conn *websocket.Conn) {
		welcome(t, conn, 30)
		say(conn, `{"type":"goaway","reason":"drain","after_ms":10,"deadline_ms":60000}`)
		<-when.Done()
		_ = conn.Close(websocket.StatusCode(code), "because")
		closed()
	}
}

// TestDisconnectedWhileMoving (finding R10): what a backend has ended is not gone on
// with on the connection that is being made; and a session made there is ended.
func TestDisconnectedWhileMoving(t *testing.T) {
	t.Parallel()
	for _, code := range []int{4003, 1008} {
		synctest.Test(t, func(t *testing.T) {
			when, end := context.WithCancel(t.Context())
			closed, told := context.WithCancel(t.Context())
			left := make(chan error, 100)
			p := run(t, "alice", "", serveMemory(t, scripted(t, toMove(code, when, told), func(_ *testing.T, conn *websocket.Conn) {
				_, _, _ = conn.Read(context.Background())
				end()
				<-closed.Done()
				say(conn, `{"type":"connected","ref":1,"session":"s_2","user":"alice","node":"scripted","resumed":false,"ping":30,"channels":{}}`)
				_, _, err := conn.Read(context.Background())
				left <- err
			})).over(nil))
			endsWith(t, p, code, 30*time.Second)
			if err := <-left; websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				t.Errorf("the other session was left with %v", err)
			}
		})
	}
}

// TestDisconnectedWhileNobodyAnswers (finding R10): the other connection is not waited
// for until it has had its time.
func TestDisconnectedWhileNobodyAnswers(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]func(*memory, func()) script{
		"to connect": func(_ *memory, end func()) script {
			return func(_ *testing.T, conn *websocket.Conn) {
				_, _, _ = conn.Read(context.Background())
				end()
				hear(conn)
			}
		},
		"to the handshake": func(m *memory, end func()) script {
			m.dial = func(ctx context.Context, n int) error {
				if n == 1 {
					return nil
				}
				end()
				return m.dead(ctx)
			}
			return hearing
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				when, end := context.WithCancel(t.Context())
				closed, told := context.WithCancel(t.Context())
				var second script
				m := serveMemory(t, scripted(t, toMove(4003, when, told), func(t *testing.T, conn *websocket.Conn) { second(t, conn) }))
				second = silent(m, end)
				p := run(t, "alice", "", m.over(nil))
				<-closed.Done()
				endsWith(t, p, 4003, 2*time.Second)
			})
		})
	}
}

// TestTakenBeforeItHasAskedToMove (finding R10): a 4002 before the client has said
// anything on the other connection is of somebody else's doing. The session is not
// taken back.
func TestTakenBeforeItHasAskedToMove(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		when, end := context.WithCancel(t.Context())
		closed, told := context.WithCancel(t.Context())
		m := serveMemory(t, scripted(t, toMove(4002, when, told), func(t *testing.T, conn *websocket.Conn) {
			if _, b, err := conn.Read(context.Background()); err == nil {
				t.Errorf("said %s", b)
			}
		}))
		m.dial = func(_ context.Context, n int) error {
			if n == 2 {
				end()
				<-closed.Done()
				time.Sleep(time.Millisecond) // in a bubble: until the client has read it
			}
			return nil
		}
		endsWith(t, run(t, "alice", "", m.over(nil)), 4002, 30*time.Second)
	})
}
