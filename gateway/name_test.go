package gateway

import (
	"strings"
	"testing"
)

// TestNamesAreUnicode: no name and no pattern ends, or goes on, inside a character.
func TestNamesAreUnicode(t *testing.T) {
	for _, name := range []string{"room:\xc3", "\xa9", "room:\xed\xa0\x80", "\xff", "\xc0\x80"} {
		if ValidChannel(name) || ValidUser(name) || ValidPattern(name) || ValidPattern(name+"*") {
			t.Errorf("%q was taken", name)
		}
	}
	for pattern, want := range map[string]bool{
		"*": true, "**": true, "room:*": true, "é*é": true, "*é": true, "\ufffd*": true, strings.Repeat("a", 255) + "*": true,
		"\xc3*\xa9": false, "room:\xc3*\xa9*": false, "\xf0\x9f*\x98\x80": false, "*\xa9": false, "": false, "a b*": false,
	} {
		if got := ValidPattern(pattern); got != want {
			t.Errorf("ValidPattern(%q) is %v", pattern, got)
		}
	}
}
