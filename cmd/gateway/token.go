package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"wssgateway/gateway"
	"wssgateway/gateway/wire"
)

// tokenOptions are the flags of gateway token.
type tokenOptions struct {
	User      string        `config:"user" help:"the user the token is for (required)"`
	TTL       time.Duration `config:"ttl" help:"time the token is good for"`
	Subscribe []string      `config:"subscribe" help:"patterns of channels the user may subscribe to; * is any run of characters"`
	Publish   []string      `config:"publish" help:"patterns of channels the user may publish to"`
	Join      []string      `config:"join" help:"channels the user's sessions are subscribed to by themselves"`
	Client    string        `config:"client" help:"kind of client, which picks its limits"`
}

func defaultTokenOptions() *tokenOptions { return &tokenOptions{TTL: time.Hour} }

// claims are what a token says: who, for how long, and what is granted.
type claims struct {
	jwt.RegisteredClaims
	Subscribe []string `json:"subscribe,omitempty"`
	Publish   []string `json:"publish,omitempty"`
	Join      []string `json:"join,omitempty"`
	Client    string   `json:"client,omitempty"`
}

// token prints a token and nothing else, so that it can be used as
// TOKEN=$(gateway token --user alice).
func token(p process) int {
	options := defaultTokenOptions()
	cfg, err := load(p.env, p.args, options)
	if err == nil {
		err = options.validate(cfg)
	}
	if err != nil {
		p.complain(err)
		return exitUsage
	}
	signed, err := signToken(cfg, *options, time.Now())
	if err != nil {
		p.complain(err)
		return exitFailed
	}
	if _, err := fmt.Fprintln(p.stdout, signed); err != nil {
		p.complain(err)
		return exitFailed
	}
	return exitOK
}

// validate refuses what no node accepts, or grants nothing.
func (o *tokenOptions) validate(cfg *config) error {
	var wrong mistakes
	switch {
	case o.User == "":
		wrong = append(wrong, "--user: is required")
	case !gateway.ValidUser(o.User):
		wrong = append(wrong, fmt.Sprintf("--user: %s cannot be a user: %s", quote(o.User), nameRule(gateway.MaxUser)))
	}
	if o.TTL <= 0 {
		wrong = append(wrong, "--ttl: must be positive")
	}
	wrong = append(wrong, badNames("--subscribe", o.Subscribe, gateway.ValidPattern, "matches no channel")...)
	wrong = append(wrong, badNames("--publish", o.Publish, gateway.ValidPattern, "matches no channel")...)
	wrong = append(wrong, badNames("--join", o.Join, gateway.ValidChannel, "is not a channel")...)
	if mistake := cfg.badSigningSecret(); mistake != "" {
		wrong = append(wrong, mistake)
	}
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}

// badNames returns a mistake for each name that is not valid.
func badNames(flag string, names []string, valid func(string) bool, mistake string) (wrong mistakes) {
	for _, name := range names {
		if !valid(name) {
			wrong = append(wrong, fmt.Sprintf("%s: %s %s: %s", flag, quote(name), mistake, nameRule(wire.MaxChannel)))
		}
	}
	return wrong
}

func nameRule(most int) string {
	return fmt.Sprintf("a name has 1 to %d bytes of UTF-8 without white space, control or format characters, *, { or }", most)
}

// badSigningSecret returns what validation finds wrong with the secret, by the name
// under which it was set; "" if nodes have it.
func (c *config) badSigningSecret() string {
	if c.JWTSecret == "" {
		return "jwt_secret (GATEWAY_JWT_SECRET): is required to sign a token; --dev uses the development secret"
	}
	for _, err := range unjoin(c.validateAll()) {
		if path, mistake, _ := strings.Cut(err.Error(), ": "); path == "jwt_secret" {
			origin, _ := c.origins.of(path)
			return origin + ": " + mistake
		}
	}
	return ""
}

// signToken returns a token that a node with this configuration accepts.
func signToken(cfg *config, o tokenOptions, now time.Time) (string, error) {
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Subject:   o.User,
			Issuer:    cfg.Issuer,
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(o.TTL)),
		},
		Subscribe: o.Subscribe,
		Publish:   o.Publish,
		Join:      o.Join,
		Client:    o.Client,
	}
	if cfg.Audience != "" {
		c.Audience = jwt.ClaimStrings{cfg.Audience}
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(cfg.JWTSecret))
	if err != nil {
		return "", errors.New("the token cannot be signed")
	}
	return signed, nil
}

func tokenUsage(w io.Writer) {
	fmt.Fprint(w, `Usage: gateway token --user NAME [flags]

Prints a token (JWT, HS256) signed with the configured secret, or with --dev with
the development secret. Lists take commas or the flag more than once.
`)
	writeOptions(w, defaultTokenOptions())
}
