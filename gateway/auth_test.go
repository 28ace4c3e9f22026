package gateway_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
)

// badTokens are tokens that must be refused wherever they are given.
func badTokens(t *testing.T) map[string]string {
	t.Helper()
	sign := func(method jwt.SigningMethod, key any) string {
		s, err := jwt.NewWithClaims(method, claims{"sub": "alice", "iss": "us", "aud": "them"}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := token("alice", ours)
	extended := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{"sub": "alice", "iss": "us", "aud": "them"})
	extended.Header["crit"], extended.Header["b64"] = []string{"b64"}, true
	critical, err := extended.SignedString([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"no token":           "x",
		"not signed":         sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"another secret":     sign(jwt.SigningMethodHS256, []byte("another")),
		"another method":     sign(jwt.SigningMethodRS256, rsaKey),
		"signature cut":      good[:len(good)-4],
		"signature gone":     good[:strings.LastIndexByte(good, '.')+1],
		"expired":            token("alice", ours, claims{"exp": time.Now().Add(-12 * time.Second).Unix()}),
		"not yet valid":      token("alice", ours, claims{"nbf": time.Now().Add(time.Hour).Unix()}),
		"wrong issuer":       token("alice", ours, claims{"iss": "others"}),
		"no issuer":          token("alice", ours, claims{"iss": nil}),
		"wrong audience":     token("alice", ours, claims{"aud": []string{"others"}}),
		"no audience":        token("alice", ours, claims{"aud": nil}),
		"no sub":             token("alice", ours, claims{"sub": nil}),
		"empty sub":          token("", ours),
		"sub with a space":   token("al ice", ours),
		"sub with a star":    token("al*ce", ours),
		"sub with a brace":   token("al{ce", ours),
		"sub with a control": token("al\x00ce", ours),
		// Finding L7: what cannot be seen, claims by another name, extensions.
		"sub with a joiner":   token("al\u200bce", ours),
		"sub from the right":  token("al\u202ece", ours),
		"sub by another name": token("alice", ours, claims{"sub": nil, "SUB": "alice"}),
		"expired by exp":      token("alice", ours, claims{"exp": time.Now().Add(-time.Hour).Unix(), "EXP": time.Now().Add(time.Hour).Unix()}),
		"early by nbf":        token("alice", ours, claims{"nbf": time.Now().Add(time.Hour).Unix(), "Nbf": 0}),
		"another's iss":       token("alice", ours, claims{"iss": "others", "Iss": "us"}),
		"critical extension":  critical,
		"sub too long":        token(strings.Repeat("a", 251), ours),
		// What encoding/json would make one name of two.
		"sub not UTF-8":        token("alice", ours, claims{"sub": json.RawMessage("\"al\xffce\"")}),
		"join not UTF-8":       token("alice", ours, claims{"join": json.RawMessage("[\"room:\xff\"]")}),
		"subscribe not UTF-8":  token("alice", ours, claims{"subscribe": json.RawMessage("[\"room:\xc3*\"]")}),
		"publish not UTF-8":    token("alice", ours, claims{"publish": json.RawMessage("[\"room:\xc3*\xa9\"]")}),
		"half a pair in sub":   token("alice", ours, claims{"sub": json.RawMessage(`"al\ud800ce"`)}),
		"half a pair in join":  token("alice", ours, claims{"join": json.RawMessage(`["room:1","room:\udc00"]`)}),
		"call not UTF-8":       token("alice", ours, claims{"call": json.RawMessage("[\"\xff*\"]")}),
		"sub a number":         token("alice", ours, claims{"sub": 5}),
		"join no list":         token("alice", ours, claims{"join": "room:1"}),
		"join of no channel":   token("alice", ours, claims{"join": []string{"room 1"}}),
		"subscribe no list":    token("alice", ours, claims{"subscribe": "room:1"}),
		"publish of numbers":   token("alice", ours, claims{"publish": []int{1}}),
		"client no string":     token("alice", ours, claims{"client": 1}),
		"exp no number":        token("alice", ours, claims{"exp": "tomorrow"}),
		"exp long gone":        token("alice", ours, claims{"exp": 0}),
		"exp long before":      token("alice", ours, claims{"exp": json.Number("-1e300")}),
		"exp before all":       token("alice", ours, claims{"exp": json.Number("-1e400")}),
		"exp not a number":     token("alice", ours, claims{"exp": "NaN"}),
		"exp without end":      token("alice", ours, claims{"exp": "Infinity"}),
		"exp true":             token("alice", ours, claims{"exp": true}),
		"nbf after all":        token("alice", ours, claims{"nbf": json.Number("1e19")}),
		"nbf far after all":    token("alice", ours, claims{"nbf": json.Number("1e400")}),
		"white space about it": " " + good[:10] + " " + good[10:],
	}
}

// ours are the claims that a strict node wants.
var ours = claims{"iss": "us", "aud": "them"}

func strict(cfg *gateway.Config) { cfg.Issuer, cfg.Audience = "us", "them" }

func TestBadTokens(t *testing.T) {
	t.Parallel()
	n := startOne(t, strict)
	for name, tok := range badTokens(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, q := range []string{"connect", "other"} {
				_, status, header := n.rawExchange(t, n.rawRequest(query("access_token", tok, q, "1")))
				if status != 401 || header.Get("WWW-Authenticate") == "" {
					t.Errorf("handshake: %d %v, want 401", status, header)
				}
			}
			c := n.dial(t, "")
			c.send(`{"type":"connect","ref":1,"token":%q}`, tok)
			expectHas(t, c.expectError("unauthorized"), frame{"ref": 1.0})
			c.expectClose(4001)
		})
	}
}

func TestGoodTokens(t *testing.T) {
	t.Parallel()
	n := startOne(t, strict)
	long := strings.Repeat("a", 250)
	for name, tok := range map[string]string{
		"alice":       token("alice", ours),
		"leeway":      token("leeway", ours, claims{"exp": time.Now().Add(-time.Second).Unix()}),
		"early":       token("early", ours, claims{"nbf": time.Now().Add(5 * time.Second).Unix()}),
		"forever":     token("forever", ours, claims{"exp": nil}),
		"audiences":   token("audiences", ours, claims{"aud": []string{"others", "them"}}),
		"more":        token("more", ours, claims{"jti": "j1", "iat": time.Now().Add(time.Hour).Unix(), "whatever": claims{"a": 1}}),
		"fraction":    token("fraction", ours, claims{"exp": float64(time.Now().Unix()) + 100.5}),
		"text":        token("text", ours, claims{"whatever": json.RawMessage(`"\ud800"`), "publish": json.RawMessage(`["\ud83d\ude00*"]`)}),
		"exact":       token("exact", ours, claims{"Sub": "admin", "SUB": "admin", "EXP": 0}),
		"a:b/c@d+é#%": token("a:b/c@d+é#%", ours),
		long:          token(long, ours),
	} {
		c := n.dial(t, query("access_token", tok, "connect", "1"))
		hello := c.expect("connected")
		if hello.str("user") != name || hello.channel("user:"+name) == nil {
			t.Errorf("%s: got %v", name, hello)
		}
		c = n.dial(t, "")
		c.send(`{"type":"connect","token":%q}`, tok)
		expectHas(t, c.expect("connected"), frame{"user": name})
	}
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
		s, err := jwt.NewWithClaims(method, claims{"sub": "alice", "iss": "us", "aud": "them"}).SignedString([]byte(testSecret))
		if err != nil {
			t.Fatal(err)
		}
		n.dial(t, query("access_token", s, "connect", "1")).expect("connected")
	}
}

func TestTwoTokensMustBeOfOneUser(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	c := n.dial(t, "access_token="+token("alice"))
	c.send(`{"type":"connect","ref":1,"token":%q}`, token("bob"))
	expectHas(t, c.expectError("unauthorized"), frame{"ref": 1.0})
	c.expectClose(4001)

	c = n.dial(t, "access_token="+token("alice"))
	c.send(`{"type":"connect","ref":1,"token":%q}`, token("alice", claims{"join": []string{"room:1"}}))
	hello := c.expect("connected")
	if hello.str("user") != "alice" || hello.channel("room:1") == nil {
		t.Errorf("got %v, want what the newer token grants", hello)
	}

	c = n.dial(t, "access_token="+token("alice"))
	c.send(`{"type":"connect","token":"x"}`)
	c.expectClose(4001)
}

func TestConnectionWithoutConnectEnds(t *testing.T) {
	t.Parallel()
	stolen := redistest.TimeStolen(t)
	n := startOne(t, func(cfg *gateway.Config) { cfg.AuthTimeout = 3 * time.Second })
	clients := make([]*client, 10)
	start := time.Now()
	for i := range clients {
		clients[i] = n.dial(t, "")
		clients[i].send(`{"type":"subscribe","ref":%d,"channel":"room:1"}`, i)
		expectHas(t, clients[i].expectError("unauthorized"), frame{"ref": float64(i)})
	}
	answered := time.Now() // also the last one's time runs by now
	for _, c := range clients {
		c.expectClose(4001)
	}
	if least, most := time.Since(answered), time.Since(start); most < 3*time.Second || least > 4500*time.Millisecond+stolen() {
		t.Errorf("closed after %v to %v, want 3s", least, most)
	}
	c := n.dial(t, "access_token="+token("alice"))
	c.expectClose(4001) // a token alone is no connect
	if c, _ := n.connect(t, "alice", ""); c != nil {
		c.quiet()
	}
}

func TestExpiredTokenEndsConnection(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	soon := func() claims { return claims{"exp": time.Now().Add(-6 * time.Second).Unix()} } // in 3 to 4 s, with the leeway
	c := n.dial(t, query("access_token", token("alice", soon()), "connect", "1"))
	c.expect("connected")
	f := n.dial(t, "")
	f.send(`{"type":"connect","token":%q}`, token("alice", soon()))
	f.expect("connected")
	c.expectClose(4001)
	f.expectClose(4001)

	// Whoever refreshes stays.
	r := n.dial(t, query("access_token", token("bob", soon()), "connect", "1"))
	r.expect("connected")
	exp := time.Now().Add(time.Hour).Unix()
	expectHas(t, r.reply(`{"type":"refresh","ref":9,"token":%q}`, token("bob", claims{"exp": exp})),
		frame{"type": "refreshed", "ref": 9.0, "expires_at": float64(exp)})
	witness := n.dial(t, query("access_token", token("carol", soon()), "connect", "1"))
	witness.expectClose(4001) // later than bob's first token
	r.quiet()

	// Also with a token that ends sooner.
	expectHas(t, r.reply(`{"type":"refresh","ref":1,"token":%q}`, token("bob", soon())), frame{"type": "refreshed"})
	r.expectClose(websocket.StatusCode(4001))
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	n := startOne(t, patient)
	c, _ := n.connect(t, "alice", "channel=room:1&channel=room:2&channel=open:1")
	for request, want := range map[string]frame{
		`{"type":"refresh","ref":1}`:                                         {"type": "error", "ref": 1.0, "code": "bad_request"},
		`{"type":"refresh","ref":1,"token":5}`:                               {"type": "error", "ref": 1.0, "code": "bad_request"},
		`{"type":"refresh","ref":1,"token":"x"}`:                             {"type": "error", "ref": 1.0, "code": "unauthorized"},
		`{"type":"refresh","token":"x"}`:                                     {"type": "error", "ref": nil, "code": "unauthorized"},
		`{"type":"refresh","ref":1,"token":"` + token("bob") + `"}`:          {"type": "error", "ref": 1.0, "code": "forbidden"},
		`{"type":"refresh","ref":"r","token":"` + token("alice") + `"}`:      {"type": "refreshed", "ref": "r", "expires_at": true},
		`{"type":"refresh","ref":1,"token":"` + token("alice", never) + `"}`: {"type": "refreshed", "ref": 1.0, "expires_at": nil},
	} {
		expectHas(t, c.reply("%s", request), want)
	}
	if frames := c.ask(`{"type":"refresh","token":"` + token("alice") + `"}`); len(frames) > 0 {
		t.Errorf("got %v, want nothing without ref", frames)
	}

	less := token("alice", claims{"subscribe": []string{"room:2"}, "publish": []string{}})
	var left, refreshed []frame
	for _, f := range c.ask(`{"type":"refresh","ref":7,"token":"` + less + `"}`) {
		if f.str("type") == "unsubscribed" {
			left = append(left, f)
		} else {
			refreshed = append(refreshed, f)
		}
	}
	if len(left) != 1 || !left[0].has(frame{"channel": "room:1", "ref": nil}) {
		t.Errorf("left %v, want room:1 alone", left)
	}
	if len(refreshed) != 1 || !refreshed[0].has(frame{"type": "refreshed", "ref": 7.0}) {
		t.Errorf("got %v, want refreshed", refreshed)
	}
	expectHas(t, c.reply(`{"type":"subscribe","ref":1,"channel":"room:1"}`), frame{"code": "forbidden"})
	expectHas(t, c.reply(`{"type":"publish","ref":1,"channel":"room:2","data":1}`), frame{"code": "forbidden"})
	n.publish(t, `{"channel":"room:1","data":"not for alice"}`)
	n.publish(t, `{"channel":"room:2","data":"for alice"}`)
	n.publish(t, `{"channel":"open:1","data":"for all"}`)
	for _, m := range c.expectMessages(2) {
		if data := m.str("data"); data != "for alice" && data != "for all" {
			t.Errorf("got %v", m)
		}
	}
	n.awaitChannels(t, "alice", "broadcast", "open:1", "room:2", "user:alice")
}

var never = claims{"exp": nil}

// TestTokensThatEndInAges: however large an exp is, it is neither in the past nor more
// than JSON numbers tell.
func TestTokensThatEndInAges(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	in400Years := time.Now().AddDate(400, 0, 0).Unix()
	const most = 1 << 53
	for exp, want := range map[json.Number]int64{
		json.Number(fmt.Sprint(in400Years)): in400Years,
		"9007199254740991":                  most - 1,
		"9007199254740993":                  most,
		"1e18":                              most,
		"9223372036854775807":               most,
		"9223372036854775808":               most,
		"1e19":                              most,
		"1.7976931348623157e308":            most,
		"1e400":                             most,
	} {
		tok := token("alice", claims{"exp": exp, "nbf": json.Number("-1e400")})
		c := n.dial(t, "connect=1&access_token="+tok)
		hello := c.expect("connected")
		refreshed := c.reply(`{"type":"refresh","ref":1,"token":%q}`, tok)
		for _, f := range []frame{hello, refreshed} {
			left := float64(want - time.Now().Unix())
			if got, ok := f["expires_in"].(float64); !ok || got < left-60 || got > left+60 {
				t.Errorf("exp %s: expires_in %v of %s, want %.0f", exp, f["expires_in"], f.str("type"), left)
			}
		}
		expectHas(t, refreshed, frame{"type": "refreshed", "expires_at": float64(want)})
		c.quiet() // and it lives
	}
}
