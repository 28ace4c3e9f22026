package wire

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// IsText reports whether the strings in JSON, which must be valid, are all Unicode text:
// UTF-8, and without an escape for an unpaired surrogate (RFC 8259, section 8.2).
// encoding/json replaces what is not, and so makes one name of two.
func IsText(raw []byte) bool {
	if !utf8.Valid(raw) {
		return false
	}
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return true
		}
		raw = raw[i:]
		r, size := escape(raw)
		if utf16.IsSurrogate(r) {
			low, more := escape(raw[size:])
			if utf16.DecodeRune(r, low) == utf8.RuneError {
				return false
			}
			size += more
		}
		raw = raw[size:]
	}
}

// escape returns the code unit that b begins with, if that is written as \uXXXX, and how
// many bytes an escape there takes.
func escape(b []byte) (unit rune, size int) {
	switch {
	case b[0] != '\\':
		return 0, 0
	case b[1] != 'u':
		return 0, 2
	}
	n, _ := strconv.ParseUint(string(b[2:6]), 16, 16) // JSON has four digits there
	return rune(n), 6
}
