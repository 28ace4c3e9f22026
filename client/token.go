package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// token is the token in use.
type token struct {
	text    string
	expires time.Time // zero: never, or not known
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
	t := token{text, expiry(text)}
	c.mu.Lock()
	c.token = t
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
	c.token = token{}
}

// expiry returns the exp of a JWT, without checking it: that is the gateway's.
func expiry(text string) time.Time {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(b, &claims) != nil || claims.Exp == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(claims.Exp * 1000))
}

// refreshIn returns when a token is to be replaced on a live connection: halfway
// through its last minute, or sooner if it does not live that long.
func (t token) refreshIn() time.Duration {
	if t.expires.IsZero() {
		return never
	}
	return max(0, time.Until(t.expires)-tokenMargin)
}

// never is longer than anybody waits.
const never = 10 * 365 * 24 * time.Hour
