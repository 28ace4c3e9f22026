package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"wssgateway/examples/lab"
)

// edge checks what a proxy keeps from the nodes: addresses that a client invents
// (finding L4), and bodies, which nobody reads before they are all there (finding M4).
// The proxy takes its clients for trusted ones here, as it does behind a Docker that
// hides their addresses.
func (w *world) edge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	web := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // its certificate is our own
	}}
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		if err := w.refused(ctx, web, method); err != nil {
			return err
		}
	}
	return w.overwritten(ctx, web)
}

// refused sends a body that never ends, and wants it refused all the same.
func (w *world) refused(ctx context.Context, web *http.Client, method string) error {
	endless, in := io.Pipe()
	defer in.Close()
	go func() { _, _ = in.Write(bytes.Repeat([]byte("x"), 1<<20)) }() // as far as it is taken
	req, err := http.NewRequestWithContext(ctx, method, "https://"+w.proxy.address+"/ws", endless)
	if err != nil {
		return err
	}
	resp, err := web.Do(req)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil // it was refused, and the connection closed, while the body was still being sent
	}
	if err != nil {
		return fmt.Errorf("%s with a body: %w", method, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed && resp.StatusCode != http.StatusRequestEntityTooLarge {
		return fmt.Errorf("%s with a body: %s", method, resp.Status)
	}
	return nil
}

// overwritten connects as a client that claims to be somewhere else.
func (w *world) overwritten(ctx context.Context, web *http.Client) error {
	const invented = "203.0.113.6"
	token, err := lab.Token("mallory")
	if err != nil {
		return err
	}
	ws, _, err := websocket.Dial(ctx, "wss://"+w.proxy.address+"/ws?connect=1&access_token="+token, &websocket.DialOptions{ //nolint:bodyclose // Dial does
		HTTPClient: web,
		HTTPHeader: http.Header{"X-Forwarded-For": {invented}, "X-Real-Ip": {invented}, "Forwarded": {"for=" + invented}},
	})
	if err != nil {
		return err
	}
	defer ws.CloseNow() //nolint:errcheck // it is only there to be looked at
	if _, _, err := ws.Read(ctx); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.Nodes[0].Admin+"/v1/users/mallory", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+lab.APIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var user struct{ Sessions []struct{ IP string } }
	if err := json.NewDecoder(resp.Body).Decode(&user); err != nil {
		return err
	}
	if len(user.Sessions) != 1 || user.Sessions[0].IP != "127.0.0.1" {
		return fmt.Errorf("a client that claims to be %s is listed as %v", invented, user.Sessions)
	}
	return nil
}
