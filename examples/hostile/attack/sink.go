package attack

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"sync"

	"wssgateway/gateway/wire"
)

// Sink is a server that takes whatever comes and does nothing: attackers who are
// busy with it do what they do to a gateway, on the same machine, and harm none.
// It serves until ctx is done.
func Sink(ctx context.Context, ln net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			swallow(conn)
		})
	}
}

// swallow answers requests, and after a handshake reads whatever comes.
func swallow(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		key := req.Header.Get("Sec-WebSocket-Key")
		answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
		if key != "" {
			answer = upgraded(key)
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if key != "" {
			_, _ = io.Copy(io.Discard, r) // until the peer has had enough
			return
		}
	}
}

// upgraded returns the answer to a handshake, and that of the gateway after it.
func upgraded(key string) []byte {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, section 1.3
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
	return append([]byte(answer), wire.NewObject("connected", "").Frame()...)
}
