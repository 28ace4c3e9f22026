package broker

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Message is a message as a subscriber gets it. The payload is shared by all
// who get it.
type Message struct {
	ID      ID // zero: live only
	Prev    ID // the message before it on its channel
	At      time.Time
	Payload string
	// Foreign marks a payload that somebody published to the pub/sub channel
	// past this package: it has no id, and nothing about it is known.
	Foreign bool
}

// envelopeVersion is the first byte of every payload that this package puts on
// pub/sub. What begins otherwise is somebody else's.
const envelopeVersion = '\x01'

var errEnvelope = errors.New("malformed envelope")

// encodeLive makes the pub/sub payload of a message without id; those with one
// are made by publish.lua, in the same form:
//
//	\x01<id> <id before> <microseconds since 1970 by Redis's clock>\n<payload>
func (b *Broker) encodeLive(payload []byte) []byte {
	buf := make([]byte, 0, 32+len(payload))
	buf = append(buf, envelopeVersion)
	buf = append(buf, "0-0 0-0 "...)
	buf = strconv.AppendInt(buf, b.clock.redis(time.Now()).UnixMicro(), 10)
	buf = append(buf, '\n')
	return append(buf, payload...)
}

// decode parses a pub/sub payload. It allocates nothing.
func (b *Broker) decode(payload string) (Message, error) {
	if payload == "" || payload[0] != envelopeVersion {
		return Message{Payload: payload, Foreign: true}, nil
	}
	head, body, ok := strings.Cut(payload[1:], "\n")
	if !ok {
		return Message{}, errEnvelope
	}
	id, rest, _ := strings.Cut(head, " ")
	prev, rest, _ := strings.Cut(rest, " ")
	at, _, _ := strings.Cut(rest, " ") // what later versions add is ignored
	m := Message{Payload: body}
	var err1, err2, err3 error
	var micros int64
	m.ID, err1 = ParseID(id)
	m.Prev, err2 = ParseID(prev)
	micros, err3 = strconv.ParseInt(at, 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return Message{}, errEnvelope
	}
	m.At = b.clock.local(time.UnixMicro(micros))
	return m, nil
}
