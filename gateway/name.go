package gateway

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"wssgateway/gateway/wire"
)

// classOf returns the class of a channel: what comes before the first colon,
// or all of it.
func classOf(channel string) string {
	class, _, _ := strings.Cut(channel, ":")
	return class
}

// validChannel reports whether name can be a channel.
func validChannel(name string) bool {
	return name != "" && len(name) <= wire.MaxChannel && validName(name)
}

// ValidUser reports whether a user has an inbox, and so can be one: no node accepts
// another one's token.
func ValidUser(user string) bool { return user != "" && validChannel(wire.Inbox(user)) }

// validName reports whether name is UTF-8 without what patterns, hash tags and
// lists give a meaning to, and without what cannot be seen: two names that look the
// same are the same, but for letters of different scripts.
func validName(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return r == '*' || r == '{' || r == '}' || unicode.IsSpace(r) || unicode.In(r, unicode.Cc, unicode.Cf)
	})
}
