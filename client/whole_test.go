package client_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"wssgateway/client"
	"wssgateway/gateway/wire"
)

// serveRaw runs a server that answers every handshake and hands the connection
// over, with its number from 1, and what the client says.
func serveRaw(t *testing.T, extensions string, serve func(n int, conn net.Conn, in *bufio.Reader)) (addr string) {
	t.Helper()
	var connections atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked := r.Header.Get("Sec-WebSocket-Extensions"); asked != "" {
			t.Errorf("the client asks for %s", asked)
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: gateway.v1\r\n%s\r\n", base64.StdEncoding.EncodeToString(sum[:]), extensions)
		serve(int(connections.Add(1)), conn, rw.Reader)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// heardFrame reads a short frame of the client and returns its text.
func heardFrame(in *bufio.Reader) string {
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil {
		return ""
	}
	n := int(head[1] & 0x7f)
	if n == 126 {
		long := make([]byte, 2)
		if _, err := io.ReadFull(in, long); err != nil {
			return ""
		}
		n = int(long[0])<<8 | int(long[1])
	}
	b := make([]byte, 4+n)
	if _, err := io.ReadFull(in, b); err != nil {
		return ""
	}
	for i := range b[4:] {
		b[4+i] ^= b[i%4]
	}
	return string(b[4:])
}

func textFrame(text string) []byte {
	return append(wire.AppendHeader(nil, wire.OpText, len(text)), text...)
}

const halfwayWelcome = `{"type":"connected","ref":1,"session":"s_1","user":"alice","node":"raw","resumed":false,"ping":30,"channels":{"room:1":{"last":"5-0","recovered":true}}}`

// TestHalfAMessageIsNeverHandedOn (findings H1, A3): a connection that ends inside
// a message has not brought it, wherever the end is, and the position stays.
func TestHalfAMessageIsNeverHandedOn(t *testing.T) {
	t.Parallel()
	long := []byte(`{"type":"message","channel":"room:1","id":"6-0"}` + "\n" + strings.Repeat("x", 10_000))
	frame := append(wire.AppendHeader(nil, wire.OpBinary, len(long)), long...)
	text := `{"type":"message","channel":"room:1","id":"6-0","data":1}`
	unfinished := append([]byte{0x01, byte(len(text))}, text...) // FIN is not set
	for name, sent := range map[string][]byte{
		"the header alone":          frame[:4],
		"half of the header":        frame[:3],
		"after 512 bytes":           frame[:4+512],
		"after 4,096 bytes":         frame[:4+4096],
		"all but the last byte":     frame[:len(frame)-1],
		"a whole first fragment":    unfinished,
		"between two fragments":     append(bytes.Clone(unfinished), 0x00, 0x01, ' '),
		"inside the last fragment":  append(bytes.Clone(unfinished), 0x80, 0x02, ' '),
		"before the last fragment":  append(bytes.Clone(unfinished), 0x80),
		"a ping after the fragment": append(bytes.Clone(unfinished), 0x89, 0x00),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			again := make(chan string, 1)
			addr := serveRaw(t, "", func(n int, conn net.Conn, in *bufio.Reader) {
				connect := heardFrame(in)
				_, _ = conn.Write(textFrame(halfwayWelcome))
				if n == 1 {
					_, _ = conn.Write(sent)
					return
				}
				if n == 2 {
					again <- connect
				}
				_ = heardFrame(in) // its close frame
			})
			ready := make(chan struct{})
			p := run(t, "alice", addr, func(_ *person, o *client.Options) {
				fetch := o.Token
				o.Token = func(ctx context.Context) (string, error) { <-ready; return fetch(ctx) }
			})
			p.subscribe(t, "room:1")
			close(ready)
			if connect := <-again; !strings.Contains(connect, `"room:1":"5-0"`) {
				t.Errorf("came back with %s", connect)
			}
			p.stop()
			if got := p.data("room:1"); len(got) > 0 {
				t.Errorf("handed on %.60q, …", got)
			}
		})
	}
}

// TestCompressedMessagesAreRefused (finding H1): they were not asked for. Where the
// library inflates, the end of the connection passes for the end of a message at
// any byte.
func TestCompressedMessagesAreRefused(t *testing.T) {
	t.Parallel()
	var deflated bytes.Buffer
	w, err := flate.NewWriter(&deflated, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(`{"type":"message","channel":"room:1","id":"6-0","data":1}`))
	_ = w.Flush()
	for _, extensions := range []string{"", "Sec-WebSocket-Extensions: permessage-deflate\r\n"} {
		again := make(chan struct{})
		addr := serveRaw(t, extensions, func(n int, conn net.Conn, in *bufio.Reader) {
			if n == 2 {
				close(again)
			}
			if heardFrame(in) == "" {
				return // it goes at the handshake
			}
			_, _ = conn.Write(textFrame(halfwayWelcome))
			_, _ = conn.Write(append([]byte{0xc1, byte(deflated.Len() - 4)}, deflated.Bytes()[:deflated.Len()-4]...))
			_ = heardFrame(in)
		})
		p := run(t, "alice", addr, func(_ *person, o *client.Options) { o.Other = client.Handler{} })
		p.subscribe(t, "room:1")
		<-again
		p.stop()
		if got := p.data("room:1"); len(got) > 0 {
			t.Errorf("%q: handed on %q", extensions, got)
		}
	}
}
