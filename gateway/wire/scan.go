package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// The functions here walk JSON that json.Valid has accepted, so they need not
// look for mistakes, and copy nothing.

// members calls f with the name and the raw value of each member of an object,
// until f returns an error.
func members(object []byte, f func(name, value []byte) error) error {
	i := skipSpace(object, 1)
	for object[i] != '}' {
		end := valueEnd(object, i)
		name := object[i:end]
		i = skipSpace(object, skipSpace(object, end)+1) // over the colon
		end = valueEnd(object, i)
		if err := f(name, object[i:end]); err != nil {
			return err
		}
		i = skipSpace(object, end)
		if object[i] == ',' {
			i = skipSpace(object, i+1)
		}
	}
	return nil
}

// elements calls f with each element of an array, until f returns false.
func elements(array []byte, f func(value []byte) bool) {
	i := skipSpace(array, 1)
	for array[i] != ']' {
		end := valueEnd(array, i)
		if !f(array[i:end]) {
			return
		}
		i = skipSpace(array, end)
		if array[i] == ',' {
			i = skipSpace(array, i+1)
		}
	}
}

func skipSpace(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r' {
		i++
	}
	return i
}

// valueEnd returns where the value that begins at i ends.
func valueEnd(b []byte, i int) int {
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '{', '[':
		return compositeEnd(b, i)
	}
	for i < len(b) && !isDelimiter(b[i]) { // number, true, false, null
		i++
	}
	return i
}

// TooDeep reports whether JSON, which must be valid, is nested deeper than MaxDepth:
// whoever receives it may have a parser that calls itself.
func TooDeep(b []byte) bool {
	for i, depth := 0, 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i = stringEnd(b, i) - 1
		case '{', '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}

func isDelimiter(c byte) bool {
	switch c {
	case ',', ']', '}', ':', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}

func stringEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func compositeEnd(b []byte, i int) int {
	for depth := 0; ; i++ {
		switch b[i] {
		case '"':
			i = stringEnd(b, i) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
}

// str decodes a string, which must be text. null is an empty one, as if the field were
// not there.
func str(raw []byte) (string, error) {
	if string(raw) == "null" {
		return "", nil
	}
	if raw[0] != '"' {
		return "", errors.New("must be a string")
	}
	if !IsText(raw) {
		return "", errors.New("contains an unpaired surrogate")
	}
	return lenientStr(raw)
}

// lenientStr decodes a string. What is no text in it becomes U+FFFD.
func lenientStr(raw []byte) (string, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// boundedStr decodes a string of at most limit bytes.
func boundedStr(raw []byte, limit int) (string, error) {
	s, err := str(raw)
	if err == nil && len(s) > limit {
		err = fmt.Errorf("must have at most %d bytes", limit)
	}
	return s, err
}

func integer(raw []byte) (int, error) {
	n, err := strconv.Atoi(string(raw))
	if err != nil {
		return 0, errors.New("must be an integer")
	}
	return n, nil
}
