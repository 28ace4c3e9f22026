package gateway

import "testing"

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "anything:at all", true}, {"**", "", true}, {"a", "a", true}, {"a", "ab", false},
		{"a*", "a", true}, {"a*", "ab", true}, {"a*", "ba", false}, {"*a", "ba", true}, {"*a", "ab", false}, {"*a", "a", true},
		{"a*a", "a", false}, {"a*a", "aa", true}, {"a*a", "aba", true}, {"ab*ba", "aba", false}, {"a*b*c", "abc", true}, {"a*b*c", "axbxc", true},
		{"a*b*c", "acb", false}, {"*a*", "bab", true}, {"*a*", "b", false}, {"*ab*ab*", "abab", true}, {"*ab*ab*", "aab", false},
		{"a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false}, {"room:*", "room:", true}, {"room:*", "room", false},
		{"é*", "éa", true}, {"?", "a", false}, {"[a]", "a", false}, {".", "a", false},
	} {
		if got := match(test.pattern, test.s); got != test.want {
			t.Errorf("match(%q, %q) is %v", test.pattern, test.s, got)
		}
	}
}
