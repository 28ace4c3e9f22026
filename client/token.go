package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// token is the token in use.
type token struct {
	text    string
	expires time.Time // zero: never, or not known
	join    []string  // channels that the gateway subscribes to by itself
}

// tokenTimeout is how long the application may take for a token.
const tokenTimeout = 10 * time.Second

// tokenMargin is how long before its end a token is replaced.
const tokenMargin = 30 * time.Second

// fresh returns a token that lasts for a while.
func (c *Client) fresh(ctx context.Context) (token, error) {
	c.mu.Lock()
	t := c.token
	c.mu.Unlock()
	if t.text != "" && (t.expires.IsZero() || time.Until(t.expires) > tokenMargin) {
		return t, nil
	}
	return c.renew(ctx)
}

// renew asks for another token.
func (c *Client) renew(ctx context.Context) (token, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	text, err := c.fetch(ctx)
	if err != nil {
		return token{}, fmt.Errorf("client: token: %w", err)
	}
	t := parseToken(text)
	c.mu.Lock()
	c.token = t
	maps.DeleteFunc(c.unwanted, func(channel string, _ bool) bool { return !slices.Contains(t.join, channel) })
	c.mu.Unlock()
	return t, nil
}

// fetch calls the application, which may take no notice of ctx.
func (c *Client) fetch(ctx context.Context) (string, error) {
	type fetched struct {
		text string
		err  error
	}
	done := make(chan fetched, 1)
	go func() {
		text, err := c.options.Token(ctx)
		done <- fetched{text, err}
	}()
	select {
	case f := <-done:
		return f.text, f.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// forgetToken has the next connection ask for another token.
func (c *Client) forgetToken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = token{join: c.token.join}
}

// parseToken reads a JWT without checking it: that is the gateway's. What cannot be
// read is not known.
func parseToken(text string) token {
	t := token{text: text}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return t
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return t
	}
	var claims struct {
		Exp  float64         `json:"exp"`
		Join json.RawMessage `json:"join"`
	}
	if json.Unmarshal(b, &claims) != nil {
		return t
	}
	if claims.Exp != 0 {
		const most = 1 << 62 // ms, far more than anybody waits
		t.expires = time.UnixMilli(int64(min(max(claims.Exp*1000, -most), most)))
	}
	if json.Unmarshal(claims.Join, &t.join) != nil {
		t.join = nil
	}
	return t
}

// refreshIn returns when a token is to be replaced on a live connection: halfway
// through its last minute, or sooner if it does not live that long.
func (t token) refreshIn() time.Duration {
	if t.expires.IsZero() {
		return never
	}
	return min(never, max(tokenMargin, time.Until(t.expires))-tokenMargin)
}

// never is longer than anybody waits.
const never = 10 * 365 * 24 * time.Hour
