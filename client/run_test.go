package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"wssgateway/client"
)

// failures are what a client was told of attempts that failed.
type failures struct {
	mu  sync.Mutex
	all []client.Failed
}

func (f *failures) add(one client.Failed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, one)
}

func (f *failures) get() []client.Failed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}

// telling has a client tell f, and wait as long as clients do.
func (f *failures) telling(_ *person, o *client.Options) {
	o.Failed = f.add
	o.Backoff = client.Backoff{}
}

// TestFailedAttemptsAreTold (finding U2): each with its cause, and when the next one
// will be.
func TestFailedAttemptsAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		m := serveMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch n++; n {
			case 1:
				w.Header().Set("Content-Type", "application/problem+json")
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprint(w, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"node is shutting down; connect to another","code":"unavailable"}`)
			case 2:
				w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, `{"status":401,"detail":"token: signature is invalid","code":"unauthorized"}`)
			case 3:
				http.Error(w, "no healthy upstream\nat all", http.StatusBadGateway)
			default:
				scripted(t, staying).ServeHTTP(w, r)
			}
		}))
		m.dial = func(_ context.Context, n int) error {
			switch n {
			case 1:
				return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			case 2:
				return &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "gateway", IsNotFound: true}}
			}
			return nil
		}
		var told failures
		start := time.Now()
		p := run(t, "alice", "", m.over(told.telling))
		if err := p.AwaitConnected(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		all := told.get()
		if len(all) != 5 || p.tokens.Load() != 2 {
			t.Fatalf("told %+v, %d tokens", all, p.tokens.Load())
		}
		at := start
		for i, f := range all {
			if f.Attempt != i+1 || f.Handover || f.At != at || f.Wait > 32*time.Second {
				t.Errorf("told %+v, at %v", f, f.At.Sub(start))
			}
			at = f.At.Add(f.Wait)
		}
		if at != time.Now() {
			t.Errorf("connected after %v, and was to be after %v", time.Since(start), at.Sub(start))
		}
		var name *net.DNSError
		if !errors.Is(all[0].Err, syscall.ECONNREFUSED) || all[0].Err.Error() != "client: connect: dial tcp: connection refused" {
			t.Errorf("a refused port: %v", all[0].Err)
		}
		if !errors.As(all[1].Err, &name) {
			t.Errorf("no such host: %v", all[1].Err)
		}
		if all[2].Wait < 7*time.Second {
			t.Errorf("Retry-After: waits %v", all[2].Wait)
		}
		for i, want := range []client.RefusedError{
			{Status: 503, Code: "unavailable", Reason: "node is shutting down; connect to another", RetryAfter: 7 * time.Second},
			{Status: 401, Code: "unauthorized", Reason: "token: signature is invalid"},
			{Status: 502, Reason: "no healthy upstream"},
		} {
			var refused *client.RefusedError
			if !errors.As(all[2+i].Err, &refused) || *refused != want || !strings.HasSuffix(refused.Error(), want.Reason) {
				t.Errorf("%d: %v", want.Status, all[2+i].Err)
			}
		}
	})
}

// TestTLSAgainstPlain (finding U2): the mistake of a scheme is told as such.
func TestTLSAgainstPlain(t *testing.T) {
	t.Parallel()
	plain, secure := httptest.NewServer(http.NotFoundHandler()), httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	for address, want := range map[string]string{
		"wss://" + plain.Listener.Addr().String():  "HTTP response to HTTPS client",
		"wss://" + secure.Listener.Addr().String(): "certificate",
		"ws://" + secure.Listener.Addr().String():  "HTTP request to an HTTPS server",
	} {
		failed := make(chan error, 100)
		c, err := client.New(address, client.Options{
			Token:      fetchToken("alice"),
			HTTPClient: &http.Client{Transport: &http.Transport{}},
			Failed:     func(f client.Failed) { failed <- f.Err },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		select {
		case err = <-failed:
		case err = <-ended: // 400 is final
			ended <- nil
		}
		cancel()
		<-ended
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestBusyGatewayIsLeftAlone: 1013 and 4029, with what was said before the close.
func TestBusyGatewayIsLeftAlone(t *testing.T) {
	t.Parallel()
	for code, said := range map[int]string{1013: "unavailable", 4029: "limit_exceeded"} {
		synctest.Test(t, func(t *testing.T) {
			var told failures
			p := run(t, "alice", "", serveMemory(t, scripted(t, func(_ *testing.T, conn *websocket.Conn) {
				if _, _, err := conn.Read(context.Background()); err == nil {
					say(conn, `{"type":"error","ref":1,"code":%q,"message":"not now"}`, said)
					_ = conn.Close(websocket.StatusCode(code), "")
				}
			})).over(told.telling))
			pass(5 * time.Minute)
			p.stop()
			for _, f := range told.get() {
				var closed *client.CloseError
				var e *client.Error
				if !errors.As(f.Err, &closed) || closed.Code != code || !errors.As(f.Err, &e) || e.Code != said || f.Wait < 2*time.Second {
					t.Errorf("told %+v", f)
				}
			}
			if n := len(told.get()); n < 7 || n > 40 {
				t.Errorf("%d: %d attempts in 5 minutes", code, n)
			}
		})
	}
}

// TestSessionMovedToAConnectionThatWasGivenUp (finding B13): the claim of a connect
// request that had no answer comes late, and closes the connection made after it.
func TestSessionMovedToAConnectionThatWasGivenUp(t *testing.T) {
	t.Parallel()
	for name, scripts := range map[string][]script{
		"a connection was lost": {closing(1012), hearing},
		"moving": {func(t *testing.T, conn *websocket.Conn) {
			welcome(t, conn, 30)
			say(conn, `{"type":"goaway","reason":"drain","after_ms":10,"deadline_ms":60000}`)
			hear(conn)
		}, hearing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := run(t, "alice", "", serveMemory(t, scripted(t, append(scripts, closing(4002), closing(4002))...)).over(nil))
				err, ok := within(time.Minute, p.ended)
				var closed *client.CloseError
				if !ok || !errors.As(err, &closed) || closed.Code != 4002 {
					t.Fatalf("ended: %t, %v", ok, err)
				}
				p.ended <- nil
				connected := 0
				for _, what := range p.news {
					if strings.HasPrefix(what, "connected") {
						connected++
					}
				}
				if connected != 3 { // the first, and both that were closed with 4002
					t.Errorf("news %q", p.news)
				}
			})
		})
	}
}

// TestNodeThatTookTheSessionGoes (finding B13): the connection to move to has taken
// the session, and is closed before it is connected.
func TestNodeThatTookTheSessionGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		taken := make(chan struct{})
		p := run(t, "alice", "", serveMemory(t, scripted(t, func(t *testing.T, conn *websocket.Conn) {
			welcome(t, conn, 30)
			say(conn, `{"type":"goaway","reason":"drain","after_ms":10,"deadline_ms":60000}`)
			<-taken
			_ = conn.Close(4002, "moved")
		}, func(_ *testing.T, conn *websocket.Conn) {
			_, _, _ = conn.Read(context.Background())
			close(taken)
			_ = conn.Close(1012, "node is shutting down")
		}, staying)).over(nil))
		pass(time.Minute)
		if len(p.ended) > 0 || p.told("connected to scripted resumed false handover false")+p.told("connected to scripted resumed false handover true") != 2 {
			t.Errorf("ended: %d, news %q", len(p.ended), p.news)
		}
	})
}

// hearing answers nothing.
func hearing(_ *testing.T, conn *websocket.Conn) { hear(conn) }

// TestDeviceDoesNotLoseItsPlace (finding A7): where it has read its inbox is asked
// for by connect alone.
func TestDeviceDoesNotLoseItsPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &desk{reply: func(n int, r asked) string {
			if n < 3 {
				return `{"type":"connected","session":"s_1","user":"alice","node":"desk","ping":3600,"channels":{"user:alice":{"error":"unavailable"}}}`
			}
			return `{"type":"connected","session":"s_1","user":"alice","node":"desk","ping":3600,"channels":{"user:alice":{"last":"9-0","recovered":true,"since":"5-0"}}}`
		}}
		p := d.start(t, func(_ *person, o *client.Options) { o.Device = "phone" }).connected(t)
		d.say(`{"type":"message","channel":"user:alice","id":"6-0","data":1}`)
		synctest.Wait()
		expect(t, "messages", p.data("user:alice"), []string{"1"})
		if n := len(d.of("connect", "")); n != 3 || len(d.of("subscribe", "user:alice")) > 0 || p.told("disconnected") > 0 {
			t.Errorf("%d connections, news %q", n, p.news)
		}
	})
}
