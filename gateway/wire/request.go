package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Request is a frame of a client, its envelope decoded. Which fields count
// depends on Type. Data is a part of the frame that was decoded.
type Request struct {
	Type     string
	Ref      Ref
	Token    string            // connect, refresh
	Device   string            // connect
	Session  string            // connect
	Channels map[string]string // connect: channels and positions
	Channel  string
	To       string // publish
	Since    string // subscribe, history: a position, "0" or ""
	Before   string // history: an id, or "" for the end
	Back     bool   // history: Before was given, if only an empty one
	ID       string // ack: the id of a message
	Event    string // publish
	Key      string // publish
	HasKey   bool   // a key was given, if only an empty one
	Data     []byte // publish: JSON, or raw bytes if Binary; nil if absent
	Binary   bool
	Limit    int // history; 0 if absent
}

// Ref is a client's own name for a request, as JSON: a string or an integer. An
// empty one means that the client does not ask for a reply.
type Ref string

// Error is a mistake in a request, told to its sender.
type Error struct {
	Ref     Ref
	Code    Code
	Message string
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

func badRequest(ref Ref, format string, args ...any) *Error {
	return &Error{Ref: ref, Code: BadRequest, Message: fmt.Sprintf(format, args...)}
}

// Split returns the requests of a text frame: one object, or the objects of an
// array. They are not decoded yet: one bad request does not spoil the others.
func Split(frame []byte) ([][]byte, error) {
	if !json.Valid(frame) {
		return nil, badRequest("", "frame is not JSON")
	}
	start := skipSpace(frame, 0)
	if frame[start] != '[' {
		return [][]byte{frame[start:]}, nil
	}
	var requests [][]byte
	elements(frame[start:], func(value []byte) bool {
		requests = append(requests, value)
		return len(requests) <= MaxRequests
	})
	switch {
	case len(requests) == 0:
		return nil, badRequest("", "array is empty")
	case len(requests) > MaxRequests:
		return nil, badRequest("", "array has more than %d requests", MaxRequests)
	}
	return requests, nil
}

// Decode decodes one of the requests of a text frame. On a mistake it still
// returns the ref, if that is legible, in the Error.
func Decode(request []byte) (Request, error) {
	if request[0] != '{' {
		return Request{}, badRequest("", "request is not an object")
	}
	r := Request{}
	var mistake error
	_ = members(request, func(name, value []byte) error {
		if err := r.set(name, value); err != nil && mistake == nil {
			field, _ := lenientStr(name)
			mistake = fmt.Errorf("%s: %w", field, err)
		}
		return nil // go on: the ref may come later
	})
	if mistake == nil && TooDeep(request) {
		mistake = fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	if mistake != nil {
		return Request{}, badRequest(r.Ref, "%s", mistake)
	}
	if r.Type == "" {
		return Request{}, badRequest(r.Ref, "type: is required")
	}
	return r, nil
}

// DecodeBinary decodes a binary frame: the request on one line, a line feed,
// and the bytes that take the place of data.
func DecodeBinary(frame []byte) (Request, error) {
	line, data, ok := bytes.Cut(frame, []byte{'\n'})
	if !ok || !utf8.Valid(line) || !json.Valid(line) {
		return Request{}, badRequest("", "binary frame does not begin with JSON and a line feed")
	}
	r, err := Decode(line[skipSpace(line, 0):])
	if err != nil {
		return Request{}, err
	}
	if r.Data != nil {
		return Request{}, badRequest(r.Ref, "data: a binary frame has it after the line feed")
	}
	r.Data, r.Binary = data, true
	return r, nil
}

// set takes in one field. Fields that are not known are ignored.
func (r *Request) set(name, value []byte) (err error) {
	if name, err = unescaped(name); err != nil {
		return err
	}
	switch string(name) {
	case `"type"`:
		r.Type, err = str(value)
	case `"ref"`:
		r.Ref, err = parseRef(value)
	case `"token"`:
		r.Token, err = str(value)
	case `"device"`:
		r.Device, err = boundedStr(value, MaxDevice)
	case `"session"`:
		r.Session, err = str(value)
	case `"channels"`:
		r.Channels, err = positions(value)
	case `"channel"`:
		r.Channel, err = str(value)
	case `"to"`:
		r.To, err = str(value)
	case `"since"`:
		r.Since, err = str(value)
	case `"before"`:
		r.Back = string(value) != "null"
		r.Before, err = str(value)
	case `"id"`:
		r.ID, err = str(value)
	case `"event"`:
		r.Event, err = boundedStr(value, MaxEvent)
	case `"key"`:
		r.HasKey = string(value) != "null"
		r.Key, err = boundedStr(value, MaxKey)
	case `"data"`:
		r.Data = value
	case `"limit"`:
		r.Limit, err = limit(value)
	}
	return err
}

// unescaped returns the name of a field, in quotes, without escapes.
func unescaped(name []byte) ([]byte, error) {
	if bytes.IndexByte(name, '\\') < 0 {
		return name, nil
	}
	s, err := lenientStr(name) // who does not know it does not mind
	return []byte(`"` + s + `"`), err
}

func limit(value []byte) (int, error) {
	if string(value) == "null" {
		return 0, nil
	}
	n, err := integer(value)
	if err != nil || n < 1 || n > MaxHistory {
		return 0, fmt.Errorf("must be 1 to %d", MaxHistory)
	}
	return n, nil
}

// parseRef checks a ref and keeps it as it is.
func parseRef(value []byte) (Ref, error) {
	if string(value) == "null" {
		return "", nil
	}
	if value[0] == '"' {
		if _, err := boundedStr(value, MaxRef); err != nil {
			return "", err
		}
		return Ref(value), nil
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n > MaxRefInt || n < -MaxRefInt {
		return "", errors.New("must be a string or an integer up to 2^53")
	}
	return Ref(value), nil
}

// channelName decodes the name of a channel in a place where a bad one costs its
// channel alone: one that is no text becomes a name that no channel has.
func channelName(raw []byte) (string, error) {
	s, err := lenientStr(raw)
	if !IsText(raw) {
		s = strings.ReplaceAll(s, "\uFFFD", "\xff")
	}
	return s, err
}

// positions decodes the channels of a connect request.
func positions(value []byte) (map[string]string, error) {
	if string(value) == "null" {
		return nil, nil
	}
	if value[0] != '{' {
		return nil, errors.New("must be an object")
	}
	m := make(map[string]string)
	err := members(value, func(name, value []byte) error {
		channel, err := channelName(name)
		if err != nil {
			return err
		}
		if m[channel], err = str(value); err != nil {
			return fmt.Errorf("position of %q %w", channel, err)
		}
		return nil
	})
	return m, err
}
