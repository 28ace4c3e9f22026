package attack

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// TestFramesAreRead: what is meant to be well-formed is, so that an attack with it
// is refused for what it is and not for how it is written.
func TestFramesAreRead(t *testing.T) {
	spaces := bytes.Repeat([]byte(" "), 1<<20)
	for name, c := range map[string]struct {
		frames [][]byte
		want   string
	}{
		"a short one":    {[][]byte{message("short")}, "short"},
		"a long one":     {[][]byte{message(strings.Repeat("long ", 100))}, strings.Repeat("long ", 100)},
		"a huge one":     {[][]byte{message(strings.Repeat("huge ", 20_000))}, strings.Repeat("huge ", 20_000)},
		"fragments":      {[][]byte{frame(text, []byte("{")), frame(fin|ping, nil), frame(continuation, []byte(" ")), frame(fin|continuation, []byte("}"))}, "{ }"},
		"compressed":     {[][]byte{frame(fin|rsv1|text, deflated(spaces))}, string(spaces)},
		"flushed twice":  {[][]byte{frame(fin|rsv1|text, slices.Concat(deflated([]byte("one, ")), syncMarker, deflated([]byte("two"))))}, "one, two"},
		"a stored block": {[][]byte{frame(fin|rsv1|text, append(stored(false, []byte("as it is")), 0))}, "as it is"},
	} {
		t.Run(name, func(t *testing.T) {
			read := make(chan string, 1)
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				c, err := websocket.Accept(rw, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionNoContextTakeover})
				if err != nil {
					t.Error(err)
					return
				}
				defer c.CloseNow()
				c.SetReadLimit(-1)
				_, b, err := c.Read(r.Context())
				if err != nil {
					t.Error(err)
				}
				read <- string(b)
			}))
			defer server.Close()
			p := connect(t, server)
			for _, f := range c.frames {
				if err := p.send(1, f); err != nil {
					t.Fatal(err)
				}
			}
			if got := <-read; got != c.want {
				t.Errorf("got %.40q, %d bytes, want %.40q, %d", got, len(got), c.want, len(c.want))
			}
		})
	}
}

// TestReactionsAreNamed: what a server sends is counted under its name.
func TestReactionsAreNamed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		for _, frame := range []string{
			`{"type":"connected"}`, `{"type":"error","code":"bad_request"}`, `{"type":"history","messages":"` + strings.Repeat("x", 70_000) + `"}`,
		} {
			w, err := c.Writer(r.Context(), websocket.MessageText)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := io.WriteString(w, frame); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		_ = c.Close(websocket.StatusPolicyViolation, "enough") // nobody answers
	}))
	defer server.Close()
	p := connect(t, server)
	if end := p.react(openTimeout); end != "closed 1008" {
		t.Errorf("ended with %q", end)
	}
	r := p.front.result()
	for _, want := range []string{"connected", "error bad_request", "closed 1008"} {
		if r.Reactions[want] != 1 {
			t.Errorf("%q: %d times, want once", want, r.Reactions[want])
		}
	}
}

// connect opens a WebSocket that offers compression.
func connect(t *testing.T, server *httptest.Server) *peer {
	t.Helper()
	f := &front{target: Target{Public: server.Listener.Addr().String()}, Result: Result{Reactions: make(map[string]int64)}}
	ctx, cancel := context.WithTimeout(t.Context(), openTimeout)
	t.Cleanup(cancel)
	p, err := f.open(ctx, way{deflate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}
