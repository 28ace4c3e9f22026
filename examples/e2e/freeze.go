package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"wssgateway/examples/lab"
)

// freeze connects a client that is subscribed to everything a member might be and
// never reads again.
func freeze(ctx context.Context, b *balancer) error {
	n := b.choose()
	if n == nil {
		return errNoNode
	}
	t, err := lab.Token("frozen")
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", n.Public)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway/ws?connect=1&channel=room:0&channel=room:1&access_token="+t, nil)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		req.Header.Set(name, value)
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	status := make([]byte, len("HTTP/1.1 101"))
	if _, err := conn.Read(status); err != nil || string(status) != "HTTP/1.1 101" {
		return fmt.Errorf("frozen client: %q, %w", status, err)
	}
	return nil
}
