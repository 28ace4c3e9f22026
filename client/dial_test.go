package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"wssgateway/client"
)

// TestClientsAreBackSoonAfterAMachineVanished: also one whom its way leads there
// eight times of nine.
func TestClientsAreBackSoonAfterAMachineVanished(t *testing.T) {
	t.Parallel()
	for lost := range 9 {
		synctest.Test(t, func(t *testing.T) {
			m := serveMemory(t, scripted(t, staying, staying))
			conns := make(chan net.Conn, 1)
			m.dial = func(ctx context.Context, n int) error {
				if n > 1 && n <= 1+lost {
					return m.dead(ctx)
				}
				return nil
			}
			var told failures
			p := run(t, "alice", "", m.over(func(p *person, o *client.Options) {
				told.telling(p, o)
				o.HTTPClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := m.connect(ctx, network, addr)
					if err == nil {
						select {
						case conns <- conn: // the first
						default:
						}
					}
					return conn, err
				}}}
			})).connected(t)
			synctest.Wait()
			start := time.Now()
			_ = (<-conns).Close()
			synctest.Wait()
			p.connected(t)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%d lost ways: back after %v", lost, took)
			}
			synctest.Wait()
			if len(told.get()) > 0 || int(m.dialled.Load()) != 2+lost {
				t.Errorf("%d lost ways: dialled %d times, told %+v", lost, m.dialled.Load(), told.get())
			}
		})
	}
}

// TestTheFirstHandshakeToBeAnsweredWins: and it alone says whose connection it is;
// the others are closed, which ends no session.
func TestTheFirstHandshakeToBeAnsweredWins(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]time.Duration{"the second": 3 * time.Second, "the first": 2200 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var handshakes, connects, closed atomic.Int32
				said := scripted(t, func(_ *testing.T, conn *websocket.Conn) {
					if _, _, err := conn.Read(context.Background()); err != nil {
						closed.Add(1)
						return
					}
					connects.Add(1)
					say(conn, `{"type":"connected","ref":1,"session":"s_1","user":"alice","node":"scripted","ping":3600,"channels":{}}`)
					hear(conn)
				})
				m := serveMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if handshakes.Add(1) == 1 {
						time.Sleep(first)
					} else {
						time.Sleep(500 * time.Millisecond)
					}
					said.ServeHTTP(w, r)
				}))
				start := time.Now()
				p := run(t, "alice", "", m.over(nil)).connected(t)
				if took := time.Since(start); took.Truncate(10*time.Millisecond) != min(first, 2500*time.Millisecond) {
					t.Errorf("connected after %v", took)
				}
				pass(time.Minute)
				if connects.Load() != 1 || len(p.news) != 1 {
					t.Errorf("%d connect requests, news %q", connects.Load(), p.news)
				}
			})
		})
	}
}

// TestHandshakesThatFailBesideOthers: what the network says of one does not end the
// others, what the gateway says of one does.
func TestHandshakesThatFailBesideOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refusing := true
		said := scripted(t, staying)
		m := serveMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if refusing {
				refusing = false
				w.Header().Set("Retry-After", "2")
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			said.ServeHTTP(w, r)
		}))
		m.dial = func(ctx context.Context, n int) error {
			switch n {
			case 1:
				return m.dead(ctx)
			case 2:
				return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			}
			return nil
		}
		var told failures
		run(t, "alice", "", m.over(told.telling)).connected(t)
		synctest.Wait()
		var refused *client.RefusedError
		if all := told.get(); len(all) != 1 || !errors.As(all[0].Err, &refused) || all[0].Wait < 2*time.Second || m.dialled.Load() != 4 {
			t.Errorf("dialled %d times, told %+v", m.dialled.Load(), all)
		}
	})
}

// TestAGatewayThatAnswersNobodyIsNotFlooded: nine handshakes the first time, two
// at a time from then on, until one is answered.
func TestAGatewayThatAnswersNobodyIsNotFlooded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := serveMemory(t, scripted(t, staying))
		m.dial = func(ctx context.Context, n int) error {
			if n <= 9+2+2 {
				return m.dead(ctx)
			}
			return nil
		}
		var told failures
		p := run(t, "alice", "", m.over(told.telling))
		pass(time.Minute)
		p.connected(t)
		all := told.get()
		if len(all) != 3 || m.dialled.Load() != 14 {
			t.Fatalf("dialled %d times, told %+v", m.dialled.Load(), all)
		}
		if want := "client: connect: no answer within 10s"; all[0].Err.Error() != want || all[2].Err.Error() != want {
			t.Errorf("told %v", all[0].Err)
		}
	})
}

// TestJoinedHandshakesHarmNoSession: with real nodes, of which one hangs.
func TestJoinedHandshakesHarmNoSession(t *testing.T) {
	t.Parallel()
	n := startNodes(t, "a")[0]
	hanging := listen(t) // takes connections, and nothing else
	t.Cleanup(func() { _ = hanging.Close() })
	alice := run(t, "alice", n.addr, nil)
	alice.subscribe(t, "room:1")
	alice.connected(t)
	session := alice.Session()
	bob := run(t, "bob", n.addr, nil).connected(t)
	alice.way.lead(hanging.Addr().String())
	alice.way.cut()
	await(t, "a handshake", func() bool {
		alice.way.mu.Lock()
		defer alice.way.mu.Unlock()
		return len(alice.way.conns) > 0
	})
	alice.way.lead(n.addr)
	bob.publish(t, "room:1", 0, 5)
	await(t, "it is back", func() bool { return alice.told("connected to a resumed true handover false") == 1 })
	bob.publish(t, "room:1", 5, 10)
	await(t, "messages", func() bool { return len(alice.data("room:1")) == 10 })
	expect(t, "messages", alice.data("room:1"), numbers(0, 10))
	if alice.Session() != session || alice.told("disconnected") != 1 {
		t.Errorf("session %s, was %s, news %q", alice.Session(), session, alice.news)
	}
	if members, _, err := alice.Presence(t.Context(), "who:1"); err != nil || fmt.Sprint(members) != "[]" {
		t.Errorf("members %v, %v", members, err)
	}
}
