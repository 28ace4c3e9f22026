package gateway

import (
	"slices"
	"strings"
	"time"

	"wssgateway/gateway/wire"
)

// grant is what a token allows its bearer. It does not change.
type grant struct {
	user      string
	client    string    // kind of client, which picks limits
	expires   time.Time // zero: never
	join      []string
	subscribe []string // patterns
	publish   []string // patterns
	call      []string // patterns of events; nil: the token does not say
}

// describeEnd says in how many seconds the token ends, if it does: a client's clock
// may be wrong, and it need not look into the token. It may be in more years than a
// time.Duration has.
func (g *grant) describeEnd(o *wire.Object) {
	if !g.expires.IsZero() {
		begun := time.Now().Add(time.Second - 1).Unix() // the second that has begun does not count
		o.Int("expires_in", max(0, g.expires.Unix()-begun))
	}
}

// maySubscribe reports whether the bearer may subscribe to channel. The own
// inbox and the broadcast are everybody's; another's inbox is nobody's.
func (g *grant) maySubscribe(cfg *Config, channel string) bool {
	if class := classOf(channel); class == classUser || channel == wire.Broadcast {
		return channel == wire.Inbox(g.user) || channel == wire.Broadcast
	}
	switch cfg.class(channel).Subscribe {
	case AccessAny:
		return true
	case AccessToken:
		return slices.Contains(g.join, channel) || matchAny(g.subscribe, channel)
	}
	return false
}

// mayPublish reports whether the bearer may publish to channel. Only backends
// publish to the broadcast.
func (g *grant) mayPublish(cfg *Config, channel string) bool {
	if channel == wire.Broadcast {
		return false
	}
	switch cfg.class(channel).Publish {
	case AccessAny:
		return true
	case AccessToken:
		return matchAny(g.publish, channel)
	}
	return false
}

// mayCall reports whether the bearer may call backends by this event.
func (g *grant) mayCall(cfg *Config, event string) bool {
	if g.call == nil {
		return cfg.Calls.Access == AccessAny
	}
	return matchAny(g.call, event)
}

func matchAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, s) })
}

// match reports whether pattern matches all of s; * is any run of characters,
// also none. It takes the leftmost place for each part between stars, so it is
// done after one pass.
func match(pattern, s string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, first)
	if !ok {
		return false
	}
	for {
		part, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], more
	}
}
