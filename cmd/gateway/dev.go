package main

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/alicebob/miniredis/v2"

	"wssgateway/gateway"
)

// What development mode uses unless something else is set. Everybody knows
// these, so validation keeps them on loopback and refuses the secret elsewhere.
const (
	developmentSecret = "gateway-development-secret-for-loopback-only"
	developmentAPIKey = "dev"
)

// developmentDefaults opens what a first look should not stumble over: any
// token may subscribe and publish anywhere but to broadcast, and in inboxes.
func developmentDefaults(c *config) {
	c.Dev = true
	c.Listen = "127.0.0.1:8080"
	c.AdminListen = "127.0.0.1:9090"
	c.DrainDelay, c.DrainTimeout = 0, 2*time.Second // no balancer has to notice: Ctrl-C is quick
	c.JWTSecret = developmentSecret
	c.APIKey = developmentAPIKey
	open := c.Classes[gateway.ClassDefault]
	open.Subscribe, open.Publish, open.Presence = gateway.AccessAny, gateway.AccessAny, true
	c.Classes[gateway.ClassDefault] = open
	inbox := c.Classes["user"]
	inbox.Publish = gateway.AccessAny
	c.Classes["user"] = inbox
}

// startEmbeddedRedis starts a Redis in this process, reachable on loopback so
// that redis-cli and backends can be tried on it. Its data ends with it.
func startEmbeddedRedis() (*miniredis.Miniredis, error) {
	m := miniredis.NewMiniRedis()
	// Out of the box its keys expire only when a test says so.
	m.ClockTTL(true)
	if err := m.Start(); err != nil {
		return nil, fmt.Errorf("embedded Redis: %w", err)
	}
	return m, nil
}

// greeting is what a developer wants to know of a node that has just started.
type greeting struct {
	public, admin net.Addr
	redis         string // URL of the embedded one, empty if it is not used
	apiKey        string
	token         string // for alice
}

// greetingTokenTTL is long enough for a day's work.
const greetingTokenTTL = 24 * time.Hour

// greet prints what there is to try, with a token to try it with.
func greet(w io.Writer, cfg *config, bound *listeners, embedded *miniredis.Miniredis) error {
	signed, err := signToken(cfg, tokenOptions{User: "alice", TTL: greetingTokenTTL}, time.Now())
	if err != nil {
		return err
	}
	g := greeting{
		public: bound.public.Addr(),
		admin:  bound.admin.Addr(),
		apiKey: cfg.APIKey,
		token:  signed,
	}
	if embedded != nil {
		g.redis = "redis://" + embedded.Addr()
	}
	g.print(w)
	return nil
}

func (g greeting) print(w io.Writer) {
	socket := "ws://" + g.public.String() + "/ws"
	fmt.Fprintf(w, `Development mode: known secrets, loopback only, nothing is kept.

  WebSocket  %s
  Console    http://%s/
  Server API http://%s/v1/ (key: %s)
`, socket, g.public, g.admin, g.apiKey)
	if g.redis != "" {
		fmt.Fprintf(w, "  Redis      %s (embedded)\n", g.redis)
	}
	fmt.Fprintf(w, `
Token of alice, good for 24 hours:

  %s

Receive, in a browser's console or in node (22 or newer):

  new WebSocket("%s?channel=room:42&access_token=%s").onmessage = (m) => console.log(m.data)

Send, as a backend does:

  curl -H 'Authorization: Bearer %s' http://%s/v1/publish -d '{"channel":"room:42","event":"chat","data":{"text":"hi"}}'

`, g.token, socket, g.token, g.apiKey, g.admin)
}
