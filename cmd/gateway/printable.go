package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
)

// What others choose, such as their names and what they say, must not reach a
// terminal as anything but text: it would obey control characters.

// printable returns text with what cannot be shown escaped as in Go.
func printable(text string) string {
	return escape(text, func(r rune) string {
		quoted := strconv.QuoteRune(r)
		return quoted[1 : len(quoted)-1]
	})
}

// printableJSON returns JSON on one line, as the same JSON, with what cannot be
// shown escaped.
func printableJSON(b []byte) string {
	var line bytes.Buffer
	if json.Compact(&line, b) != nil {
		return printable(string(b))
	}
	return escape(line.String(), func(r rune) string {
		if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
			return fmt.Sprintf(`\u%04x\u%04x`, high, low)
		}
		return fmt.Sprintf(`\u%04x`, r)
	})
}

func escape(text string, escaped func(rune) string) string {
	var b strings.Builder
	for _, r := range text { // of what is not UTF-8, U+FFFD
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(escaped(r))
		}
	}
	return b.String()
}

// word returns text as one column: quoted, if it would not be one.
func word(text string) string {
	switch {
	case text == "":
		return "-"
	case text == "-" || printable(text) != text || strings.ContainsAny(text, " \""):
		return strconv.Quote(text)
	}
	return text
}
