package gateway

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path"
	"runtime/debug"
	"time"

	"wssgateway/gateway/wire"
)

// Config is everything an operator can set on a gateway. It is declared here
// once: the struct tags give the name in the YAML file (nested by struct), from
// which the environment variable and the flag are derived, and the help text.
// DefaultConfig gives the defaults, Validate every mistake at once.
type Config struct {
	NodeName    string `config:"node_name" help:"name of this node, unique among the nodes that run (default: the host name)"`
	Listen      string `config:"listen" help:"public address: /ws, /healthz, /readyz"`
	AdminListen string `config:"admin_listen" help:"admin address: /metrics, /healthz, /readyz and the server API"`
	Prefix      string `config:"prefix" help:"prefix of every key and channel in Redis"`
	Dev         bool   `config:"dev,nofile" help:"development mode: embedded Redis, known secrets, every class open, loopback only"`

	JWTSecret string `config:"jwt_secret,secret" help:"HMAC secret that client tokens are signed with, at least 32 bytes"`
	Issuer    string `config:"issuer" help:"if set, the iss that a token must have"`
	Audience  string `config:"audience" help:"if set, an aud that a token must have"`
	APIKey    string `config:"api_key,secret" help:"key of the server API under /v1/, at least 20 bytes; without one the API is off"`

	Origins        []string `config:"origins" help:"origins that browsers may connect from besides the same host; * is any run of characters"`
	TrustedProxies []string `config:"trusted_proxies" help:"addresses or CIDRs whose X-Forwarded-For is believed"`

	AuthTimeout      time.Duration `config:"auth_timeout" help:"time a connection has for its connect frame"`
	HandshakeTimeout time.Duration `config:"handshake_timeout" help:"time a client has to send its request"`
	ResumeWindow     time.Duration `config:"resume_window" help:"time a session outlives its connection"`
	MaxAge           time.Duration `config:"max_age" help:"age at which a connection is asked to move to another node, within a tenth of it; 0: never"`
	Lease            time.Duration `config:"lease" help:"time after its last heartbeat at which a node counts as dead"`
	Heartbeat        time.Duration `config:"heartbeat" help:"time between two heartbeats of a node"`
	DrainDelay       time.Duration `config:"drain_delay" help:"time after SIGTERM during which connections are still accepted"`
	DrainTimeout     time.Duration `config:"drain_timeout" help:"time after SIGTERM at which the process exits at the latest"`
	Events           bool          `config:"events" help:"write the stream of session events (connected, disconnected) for backends"`
	Compression      bool          `config:"compression" help:"compress messages to clients that offer permessage-deflate"`
	Pprof            bool          `config:"pprof" help:"serve /debug/pprof/ on the admin address"`

	Classes map[string]Class `config:"classes" help:"settings by channel class; * stands for the classes not named"`
	Calls   Calls            `config:"calls"`
	Limits  Limits           `config:"limits"`
}

// Calls are the settings of the calls of clients to backends.
type Calls struct {
	Timeout  time.Duration `config:"timeout" help:"time a backend has to answer a call"`
	MaxLen   int           `config:"max_len" help:"calls of one stream that may wait to be acknowledged"`
	MaxBytes Size          `config:"max_bytes" help:"memory of Redis that these may take, per stream"`
	Streams  []string      `config:"streams" help:"streams of calls that exist though no backend has made them"`
	Access   Access        `config:"access" help:"who may call: any, or token (a claim call must grant it)"`
}

// Class is the configuration of all channels of one class (the part of a
// channel's name before the first colon).
type Class struct {
	History   History `config:"history"`
	Subscribe Access  `config:"subscribe" help:"who may subscribe: none, token or any"`
	Publish   Access  `config:"publish" help:"who may publish: none, token or any"`
	Durable   bool    `config:"durable" help:"answer a publish only when a replica of Redis has it"`
	Presence  bool    `config:"presence" help:"tell who is there: presence requests, join and leave"`
}

// History says how much of a channel is kept for replay.
type History struct {
	Size int           `config:"size" help:"messages kept at least; 0: live only, at most once, no ids"`
	TTL  time.Duration `config:"ttl" help:"time after the last message at which the history is gone"`
}

// Access says who may do something on the channels of a class.
type Access string

// The values of Access.
const (
	AccessNone  Access = "none"  // no client, backends only
	AccessToken Access = "token" // clients whose token grants it
	AccessAny   Access = "any"   // every connected client
)

// Limits bound what one client can cost. Every limit is per connection unless
// it says otherwise.
type Limits struct {
	FrameSize         Size                    `config:"frame_size" help:"largest message a client may send"`
	MessagesPerSecond int                     `config:"messages_per_second" help:"requests a client may send per second; twice that at once"`
	BadFrames         int                     `config:"bad_frames" help:"bad frames in a row after which a connection is closed"`
	Subscriptions     int                     `config:"subscriptions" help:"channels a session may be subscribed to"`
	Outbox            Size                    `config:"outbox" help:"bytes that may wait for a slow client before it is disconnected"`
	Memory            Size                    `config:"memory" help:"memory of a node for what waits for slow clients and for pages of history; 0: half of GOMEMLIMIT, or 1GiB without one"`
	Clients           map[string]ClientLimits `config:"clients" help:"limits by kind of client (the token's client claim)"`
}

// ClientLimits are the limits of one kind of client.
type ClientLimits struct {
	Connections int           `config:"connections" help:"connections of one user over all nodes; 0: no limit"`
	Timeout     time.Duration `config:"timeout" help:"silence after which a connection is dropped; pings go out at half of it"`
}

// Size is a number of bytes. It is written as a number or with a unit: 64KiB, 1MiB.
type Size int64

// Names with a meaning of their own.
const (
	classUser = "user" // inboxes: wire.Inbox
	// ClassDefault is the key in Config.Classes of the classes not named there.
	// It cannot be the class of a channel.
	ClassDefault = "*"
	// clientDefault is the kind of client of a token that names none.
	clientDefault = "web"
)

// DefaultConfig returns the configuration of a gateway on which nothing was set.
func DefaultConfig() Config {
	return Config{
		Listen:           ":8080",
		AdminListen:      "127.0.0.1:9090",
		Prefix:           "gw:",
		AuthTimeout:      5 * time.Second,
		HandshakeTimeout: 10 * time.Second,
		ResumeWindow:     2 * time.Minute,
		Lease:            10 * time.Second,
		Heartbeat:        3 * time.Second,
		DrainDelay:       5 * time.Second,
		DrainTimeout:     30 * time.Second,
		Classes: map[string]Class{
			ClassDefault:   {History{100, 5 * time.Minute}, AccessToken, AccessToken, false, false},
			classUser:      {History{1000, 24 * time.Hour}, AccessToken, AccessToken, false, false},
			wire.Broadcast: {History{100, 5 * time.Minute}, AccessToken, AccessNone, false, false},
		},
		Calls: Calls{10 * time.Second, 100_000, 64 << 20, nil, AccessAny},
		Limits: Limits{
			FrameSize:         64 << 10,
			MessagesPerSecond: 100,
			BadFrames:         100,
			Subscriptions:     128,
			Outbox:            1 << 20,
			Clients: map[string]ClientLimits{
				clientDefault: {50, time.Minute},
				"mobile":      {20, 2 * time.Minute},
			},
		},
	}
}

// Validate returns every mistake in c, joined, each by the name of its setting.
func (c *Config) Validate() error {
	var m mistakes
	m.positive("auth_timeout", c.AuthTimeout)
	m.positive("handshake_timeout", c.HandshakeTimeout)
	m.positive("resume_window", c.ResumeWindow)
	m.check(c.MaxAge == 0 || c.MaxAge >= 10*time.Second, "max_age: must be at least 10s, or 0 for never")
	m.positive("heartbeat", c.Heartbeat)
	m.check(c.Lease >= 2*c.Heartbeat, "lease: must be at least twice the heartbeat (%s), so that one may get lost", c.Heartbeat)
	m.check(c.DrainDelay >= 0, "drain_delay: must not be negative")
	m.positive("drain_timeout", c.DrainTimeout)
	m.check(c.DrainDelay < c.DrainTimeout, "drain_delay: must be shorter than drain_timeout (%s)", c.DrainTimeout)
	m.check(c.NodeName != "" && len(c.NodeName) <= 128, "node_name: must have 1 to 128 bytes")
	m.check(validName(c.NodeName), "node_name: must not contain white space, control or format characters, *, { or }")
	m.check(validName(c.Prefix), "prefix: must not contain white space, control or format characters, *, { or }")
	c.validateSecrets(&m)
	for _, pattern := range c.Origins {
		_, err := path.Match(pattern, "")
		m.check(err == nil, "origins: %q is not a pattern", pattern)
	}
	for _, proxy := range c.TrustedProxies {
		m.check(isAddress(proxy), "trusted_proxies: %q is not an address or a CIDR", proxy)
	}
	for name, class := range c.Classes {
		class.validate(&m, name)
	}
	c.Calls.validate(&m, c.Limits.FrameSize)
	c.Limits.validate(&m)
	return errors.Join(m...)
}

const (
	// minJWTSecret is what HS256 takes (RFC 7518, 3.2): whoever has a token can
	// search a shorter secret at home.
	minJWTSecret = 32
	// minAPIKey is 120 random bits in base64. It can only be tried here.
	minAPIKey = 20
)

// validateSecrets never repeats a secret. In development mode everybody knows them.
func (c *Config) validateSecrets(m *mistakes) {
	m.check(c.JWTSecret != "", "jwt_secret: is required")
	if c.Dev {
		return
	}
	m.check(c.JWTSecret == "" || len(c.JWTSecret) >= minJWTSecret, "jwt_secret: must have at least %d bytes, for example from openssl rand -hex 32", minJWTSecret)
	m.check(c.APIKey == "" || len(c.APIKey) >= minAPIKey, "api_key: must have at least %d bytes, for example from openssl rand -hex 32", minAPIKey)
}

func (c Class) validate(m *mistakes, name string) {
	at := "classes." + name
	m.check(name == ClassDefault || validClass(name), "%s: is not the class of any channel", at)
	m.check(c.History.Size >= 0 && c.History.Size <= 1_000_000, "%s.history.size: must be 0 to 1000000", at)
	m.check(c.History.Size == 0 || c.History.TTL >= time.Second, "%s.history.ttl: must be at least 1s", at)
	m.check(!c.Durable || c.History.Size > 0, "%s.durable: needs a history, which history.size has off", at)
	for _, a := range []struct {
		name  string
		value Access
	}{{"subscribe", c.Subscribe}, {"publish", c.Publish}} {
		ok := a.value == AccessNone || a.value == AccessToken || a.value == AccessAny
		m.check(ok, "%s.%s: %q is not none, token or any", at, a.name, a.value)
	}
}

func (c *Calls) validate(m *mistakes, frameSize Size) {
	m.positive("calls.timeout", c.Timeout)
	m.check(c.MaxLen > 0, "calls.max_len: must be positive")
	m.check(c.MaxBytes >= 4*frameSize, "calls.max_bytes: must be at least four times limits.frame_size, so that the largest call has room")
	for _, stream := range c.Streams {
		m.check(validStream(stream), "calls.streams: %q must have 1 to 64 of A-Z a-z 0-9 _ -", stream)
	}
	m.check(c.Access == AccessToken || c.Access == AccessAny, "calls.access: %q is not token or any", c.Access)
}

func (l *Limits) validate(m *mistakes) {
	m.check(l.FrameSize >= 1024 && l.FrameSize <= 64<<20, "limits.frame_size: must be 1KiB to 64MiB")
	m.check(l.MessagesPerSecond > 0, "limits.messages_per_second: must be positive")
	m.check(l.BadFrames > 0, "limits.bad_frames: must be positive")
	m.check(l.Subscriptions > 0, "limits.subscriptions: must be positive")
	m.check(l.Outbox >= l.FrameSize, "limits.outbox: must not be smaller than limits.frame_size")
	m.check(l.Memory == 0 || l.Memory >= minMemory, "limits.memory: must be at least 16MiB, or 0 for the default")
	m.check(l.Memory == 0 || l.Memory >= 4*l.Outbox, "limits.memory: must be four times limits.outbox at least")
	_, ok := l.Clients[clientDefault]
	m.check(ok, "limits.clients: must have %q, the kind of clients that name none", clientDefault)
	for name, c := range l.Clients {
		m.check(c.Connections >= 0, "limits.clients.%s.connections: must not be negative", name)
		m.check(c.Timeout >= 2*time.Second, "limits.clients.%s.timeout: must be at least 2s", name)
	}
}

// Bounds of limits.memory: the least with which a node works, and what it is where
// neither the operator nor GOMEMLIMIT says anything.
const (
	minMemory     = 16 << 20
	defaultMemory = 1 << 30
)

// memory returns the bytes that a node may use for outboxes and pages.
func (c *Config) memory() int64 {
	if c.Limits.Memory != 0 {
		return int64(c.Limits.Memory)
	}
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		return max(limit/2, minMemory)
	}
	return defaultMemory
}

// class returns the configuration of the class of channel.
func (c *Config) class(channel string) Class {
	if class, ok := c.Classes[classOf(channel)]; ok {
		return class
	}
	return c.Classes[ClassDefault]
}

// HasPresence reports whether any class has presence.
func (c *Config) HasPresence() bool {
	for _, class := range c.Classes {
		if class.Presence {
			return true
		}
	}
	return false
}

// isAddress reports whether s is an IP address or a CIDR.
func isAddress(s string) bool {
	if _, err := netip.ParsePrefix(s); err == nil {
		return true
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

// mistakes collects what is wrong with a configuration.
type mistakes []error

func (m *mistakes) check(ok bool, format string, args ...any) {
	if !ok {
		*m = append(*m, fmt.Errorf(format, args...))
	}
}

func (m *mistakes) positive(name string, d time.Duration) {
	m.check(d > 0, "%s: must be positive", name)
}
