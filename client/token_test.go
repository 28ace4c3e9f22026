package client

import (
	"encoding/base64"
	"fmt"
	"testing"
	"time"
)

// TestATokenIsReplacedBeforeItEnds: however far away its end is, that is not now.
func TestATokenIsReplacedBeforeItEnds(t *testing.T) {
	in := func(d time.Duration) string { return fmt.Sprint(time.Now().Add(d).Unix()) }
	for exp, want := range map[string]time.Duration{
		in(time.Hour): time.Hour - tokenMargin, in(-time.Hour): 0, in(time.Second): 0, "-1e300": 0,
		"null": never, `"soon"`: never, "4e11": never, "1e18": never, "9223372036854775808": never, "1e300": never, "1e400": never,
	} {
		claims := base64.RawURLEncoding.EncodeToString([]byte(`{"exp":` + exp + `}`))
		got := parseToken("e30." + claims + ".c2ln").refreshIn()
		if got > want || got < want-time.Minute {
			t.Errorf("exp %s: replaced in %v, want %v", exp, got, want)
		}
	}
}
