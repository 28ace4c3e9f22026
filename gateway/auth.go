package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"wssgateway/gateway/wire"
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

// tokenClaims are the claims of a token, as docs/protocol.md has them.
type tokenClaims struct {
	jwt.RegisteredClaims
	Client    string
	Join      []string
	Subscribe []string
	Publish   []string
	Call      []string
}

// UnmarshalJSON takes claims by their exact names: encoding/json takes SUB for sub,
// and the last one counts, so that what an issuer copies into its tokens, such as
// attributes of a user's choice, would stand for claims.
func (c *tokenClaims) UnmarshalJSON(b []byte) error {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(b, &given); err != nil {
		return err
	}
	for name, raw := range given {
		if target := c.claim(name); target != nil {
			if !wire.IsText(raw) {
				return fmt.Errorf("%s: contains invalid UTF-8 or an unpaired surrogate", name)
			}
			if err := json.Unmarshal(raw, target); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// claim returns where a claim of this name goes, or nil if it means nothing here.
func (c *tokenClaims) claim(name string) any {
	switch name {
	case "sub":
		return &c.Subject
	case "exp":
		return &numericDate{&c.ExpiresAt}
	case "nbf":
		return &numericDate{&c.NotBefore}
	case "iss":
		return &c.Issuer
	case "aud":
		return &c.Audience
	case "client":
		return &c.Client
	case "join":
		return &c.Join
	case "subscribe":
		return &c.Subscribe
	case "publish":
		return &c.Publish
	case "call":
		return &c.Call
	}
	return nil
}

// farthest is the last second that a token can name: what JSON numbers tell exactly.
// What is beyond counts as it; time.Time would take it for the past.
const farthest = 1 << 53

// numericDate takes in a NumericDate (RFC 7519, section 2), however large it is.
type numericDate struct{ to **jwt.NumericDate }

// UnmarshalJSON implements json.Unmarshaler.
func (d *numericDate) UnmarshalJSON(b []byte) error {
	var number json.Number
	if err := json.Unmarshal(b, &number); err != nil || number == "" {
		return err // null: it is not given
	}
	seconds, err := number.Float64()
	if err != nil && !errors.Is(err, strconv.ErrRange) { // else it is infinite
		return err
	}
	seconds = min(max(seconds, -farthest), farthest)
	*d.to = jwt.NewNumericDate(time.Unix(int64(seconds), 0))
	return nil
}

// key returns the secret that a token must be signed with. Of extensions that must be
// understood (RFC 7515, 4.1.11) none is.
func (v *verifier) key(t *jwt.Token) (any, error) {
	if _, critical := t.Header["crit"]; critical {
		return nil, errors.New("an extension is not understood")
	}
	return v.secret, nil
}

// verify returns what a token grants. The error says why it is refused, in words
// that its bearer may read.
func (v *verifier) verify(token string) (*grant, error) {
	var c tokenClaims
	_, err := v.parser.ParseWithClaims(token, &c, v.key)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, errors.New("token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return nil, errors.New("token is not valid yet")
	case errors.Is(err, jwt.ErrTokenInvalidClaims):
		return nil, errors.New("token is not meant for this server")
	case err != nil:
		return nil, errors.New("token is not valid")
	case !ValidUser(c.Subject):
		return nil, errors.New("token's sub cannot be a user")
	}
	for _, channel := range c.Join {
		if !ValidChannel(channel) {
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
