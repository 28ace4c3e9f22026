package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"wssgateway/client"
)

// script is what a server does with one connection. It says what a real one says
// too seldom to wait for.
type script func(t *testing.T, conn *websocket.Conn)

// serveScripts runs a server that goes through scripts, one a connection; the
// last one stays. It returns its address and counts the connections.
func serveScripts(t *testing.T, scripts ...script) (addr string, connections *atomic.Int32) {
	t.Helper()
	connections = &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(connections.Add(1))
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"gateway.v1"}})
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer func() { _ = conn.CloseNow() }()
		scripts[min(n, len(scripts))-1](t, conn)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), connections
}

// welcome answers the connect request and returns it.
func welcome(t *testing.T, conn *websocket.Conn, ping int) string {
	t.Helper()
	_, b, err := conn.Read(context.Background())
	if err != nil {
		return ""
	}
	say(conn, `{"type":"connected","ref":1,"session":"s_1","user":"alice","node":"scripted","resumed":false,"ping":%d,"channels":{}}`, ping)
	return string(b)
}

func say(conn *websocket.Conn, format string, args ...any) {
	_ = conn.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil, format, args...))
}

// hear reads until the client has gone.
func hear(conn *websocket.Conn) {
	for {
		if _, _, err := conn.Read(context.Background()); err != nil {
			return
		}
	}
}

func closing(code int) script {
	return func(t *testing.T, conn *websocket.Conn) {
		welcome(t, conn, 30)
		_ = conn.Close(websocket.StatusCode(code), "because")
	}
}

func staying(t *testing.T, conn *websocket.Conn) { welcome(t, conn, 30); hear(conn) }

func TestFinalCodesEndTheClient(t *testing.T) {
	t.Parallel()
	for _, code := range []int{1008, 4002, 4003} {
		addr, connections := serveScripts(t, closing(code), staying)
		p := run(t, "alice", addr, nil)
		err := <-p.ended
		p.ended <- nil // for the end of the test
		var closed *client.CloseError
		if !errors.As(err, &closed) || closed.Code != code || closed.Reason != "because" || connections.Load() != 1 {
			t.Errorf("%d: ended with %v after %d connections", code, err, connections.Load())
		}
	}
	for _, code := range []int{1001, 1011, 1012, 1013, 4001, 4008, 4029} {
		addr, connections := serveScripts(t, closing(code), staying)
		p := run(t, "alice", addr, nil)
		await(t, fmt.Sprint("it comes back after ", code), func() bool {
			return connections.Load() == 2 && p.told("connected to scripted resumed false handover false") == 2
		})
		if want := int32(1); code == 4001 && p.tokens.Load() != want+1 || code != 4001 && p.tokens.Load() != want {
			t.Errorf("%d: asked for %d tokens", code, p.tokens.Load())
		}
	}
}

func TestRefusedHandshakes(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	var first, second time.Time
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1:
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			second = time.Now()
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer s.Close()
	p := run(t, "alice", strings.TrimPrefix(s.URL, "http://"), nil)
	err := <-p.ended
	p.ended <- nil
	var refused *client.RefusedError
	if !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
		t.Errorf("ended with %v", err)
	}
	if waited := second.Sub(first); waited < time.Second || waited > 15*time.Second {
		t.Errorf("came back after %v", waited)
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	frozen := make(chan struct{})
	t.Cleanup(func() { close(frozen) })
	addr, connections := serveScripts(t, func(t *testing.T, conn *websocket.Conn) {
		welcome(t, conn, 1) // a ping a second is promised
		<-frozen
	}, staying)
	start := time.Now()
	p := run(t, "alice", addr, nil).connected(t)
	await(t, "another connection", func() bool { return connections.Load() == 2 })
	if took := time.Since(start); took < 2*time.Second || took > 6*time.Second {
		t.Errorf("given up after %v", took)
	}
	await(t, "the news", func() bool { return p.told("disconnected") == 1 })
}

// TestCallIsNotRepeated: nobody knows whether it was done.
func TestCallIsNotRepeated(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	addr, _ := serveScripts(t, func(t *testing.T, conn *websocket.Conn) {
		welcome(t, conn, 30)
		if _, b, err := conn.Read(context.Background()); err == nil && strings.Contains(string(b), `"call"`) {
			calls.Add(1)
		}
	}, func(t *testing.T, conn *websocket.Conn) {
		welcome(t, conn, 30)
		for {
			_, b, err := conn.Read(context.Background())
			if err != nil {
				return
			}
			calls.Add(1)
			var ref int
			if i := strings.Index(string(b), `"ref":`); i >= 0 {
				_, _ = fmt.Sscanf(string(b)[i:], `"ref":%d`, &ref)
			}
			say(conn, `{"type":"reply","ref":%d,"data":{"order":7}}`, ref)
		}
	})
	p := run(t, "alice", addr, nil).connected(t)
	if _, err := p.Call(t.Context(), "orders.create", []byte(`{}`)); !errors.Is(err, client.ErrLost) {
		t.Errorf("a call whose connection is lost: %v", err)
	}
	if data, err := p.Call(t.Context(), "orders.create", []byte(`{}`)); err != nil || string(data) != `{"order":7}` {
		t.Errorf("%s, %v", data, err)
	}
	if calls.Load() != 2 {
		t.Errorf("called %d times", calls.Load())
	}
}

// TestClientThatCannotMoveStays: the old connection serves until there is another.
func TestClientThatCannotMoveStays(t *testing.T) {
	t.Parallel()
	moved := make(chan struct{})
	broken := func(_ *testing.T, conn *websocket.Conn) { _ = conn.CloseNow() }
	addr, connections := serveScripts(t, func(t *testing.T, conn *websocket.Conn) {
		welcome(t, conn, 30)
		say(conn, `{"type":"goaway","reason":"drain","after_ms":10,"deadline_ms":10000}`)
		<-moved
		say(conn, `{"type":"message","channel":"user:alice","id":"9-0","data":"late"}`) // counts for nothing
		_ = conn.Close(4002, "moved")
	}, broken, broken, func(t *testing.T, conn *websocket.Conn) {
		if request := welcome(t, conn, 30); !strings.Contains(request, `"session":"s_1"`) {
			t.Errorf("request %s", request)
		}
		close(moved)
		hear(conn)
	})
	p := run(t, "alice", addr, nil)
	await(t, "it has moved", func() bool { return p.told("connected to scripted resumed false handover true") == 1 })
	if connections.Load() != 4 || p.told("disconnected") > 0 {
		t.Errorf("%d connections, news %q", connections.Load(), p.news)
	}
	p.stop()
	if got := p.data("user:alice"); len(got) > 0 {
		t.Errorf("the old connection delivered %q", got)
	}
}

// TestEndDoesNotWaitForAFrozenServer.
func TestEndDoesNotWaitForAFrozenServer(t *testing.T) {
	t.Parallel()
	frozen := make(chan struct{})
	t.Cleanup(func() { close(frozen) })
	addr, _ := serveScripts(t, func(t *testing.T, conn *websocket.Conn) { welcome(t, conn, 30); <-frozen })
	p := run(t, "alice", addr, nil).connected(t)
	start := time.Now()
	p.stop()
	if took := time.Since(start); took > 4500*time.Millisecond { // a second, or the five that the library waits
		t.Errorf("took %v", took)
	}
}
