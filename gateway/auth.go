package gateway

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// tokenLeeway is how far the clock of whoever signs tokens may be off.
const tokenLeeway = 10 * time.Second

// verifier checks tokens. It is safe from several goroutines.
type verifier struct {
	parser *jwt.Parser
	secret []byte
	kinds  map[string]ClientLimits
}

func newVerifier(cfg *Config) *verifier {
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{"HS256", "HS384", "HS512"}),
		jwt.WithLeeway(tokenLeeway),
	}
	if cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(cfg.Issuer))
	}
	if cfg.Audience != "" {
		options = append(options, jwt.WithAudience(cfg.Audience))
	}
	return &verifier{parser: jwt.NewParser(options...), secret: []byte(cfg.JWTSecret), kinds: cfg.Limits.Clients}
}

// tokenClaims are the claims of a token, named as in docs/protocol.md.
type tokenClaims struct {
	jwt.RegisteredClaims
	Client    string   `json:"client"`
	Join      []string `json:"join"`
	Subscribe []string `json:"subscribe"`
	Publish   []string `json:"publish"`
	Call      []string `json:"call"`
}

// verify returns what a token grants. The error says why it is refused, in words
// that its bearer may read.
func (v *verifier) verify(token string) (*grant, error) {
	var c tokenClaims
	_, err := v.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return v.secret, nil })
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, errors.New("token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return nil, errors.New("token is not valid yet")
	case errors.Is(err, jwt.ErrTokenInvalidClaims):
		return nil, errors.New("token is not meant for this server")
	case err != nil:
		return nil, errors.New("token is not valid")
	case !validUser(c.Subject):
		return nil, errors.New("token's sub cannot be a user")
	}
	for _, channel := range c.Join {
		if !validChannel(channel) {
			return nil, fmt.Errorf("token's join has %q, which is not a channel", channel)
		}
	}
	return c.grant(v.kinds), nil
}

// grant returns what the claims grant. A kind of client that has no limits of
// its own is one of the default kind, so that no token has more by a new name.
func (c *tokenClaims) grant(kinds map[string]ClientLimits) *grant {
	g := &grant{
		user: c.Subject, client: c.Client,
		join: c.Join, subscribe: c.Subscribe, publish: c.Publish, call: c.Call,
	}
	if _, ok := kinds[g.client]; !ok {
		g.client = clientDefault
	}
	if c.ExpiresAt != nil {
		g.expires = c.ExpiresAt.Time
	}
	return g
}
