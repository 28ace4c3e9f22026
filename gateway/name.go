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

// ValidChannel reports whether name can be a channel: no node accepts a token that
// joins another one.
func ValidChannel(name string) bool {
	return name != "" && len(name) <= wire.MaxChannel && validName(name)
}

// ValidPattern reports whether a pattern of channels matches any. Its stars stand
// between characters, not within one.
func ValidPattern(pattern string) bool {
	rest := strings.ReplaceAll(pattern, "*", "")
	return pattern != "" && utf8.ValidString(pattern) && len(rest) <= wire.MaxChannel && validName(rest)
}

// validClass reports whether a class can be that of a channel.
func validClass(name string) bool {
	return len(name) <= wire.MaxChannel && validName(name) && !strings.Contains(name, ":")
}

// MaxUser is how many bytes a user may have.
const MaxUser = wire.MaxChannel - len("user:")

// ValidUser reports whether a user has an inbox, and so can be one: no node accepts
// another one's token.
func ValidUser(user string) bool { return user != "" && ValidChannel(wire.Inbox(user)) }

// validName reports whether name is UTF-8 without what patterns, hash tags and
// lists give a meaning to, and without what cannot be seen: two names that look the
// same are the same, but for letters of different scripts.
func validName(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return r == '*' || r == '{' || r == '}' || unicode.IsSpace(r) || unicode.In(r, unicode.Cc, unicode.Cf)
	})
}
