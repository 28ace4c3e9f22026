package gateway

import (
	"errors"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

// A payload is a message as it lies in Redis. It holds the fields of the frame
// as they go out, so that a node that receives it only puts a beginning in front:
//
//	t,"event":"chat","from":"alice","data":{"text":"hi"}
//	b,"event":"chat","from":"alice"\n<raw bytes>
//
// The first byte is the kind, and the version: another form gets another letter.
const (
	payloadText   = 't'
	payloadBinary = 'b'
)

// message is what somebody publishes.
type message struct {
	event  string
	from   string
	to     string
	data   []byte // JSON, or raw bytes if binary
	binary bool

	parent      trace.SpanContext // what publishes it is part of, if it is followed
	traceparent string            // set by tracing.publish; "" if it is not followed
}

// payload returns the message as it is stored. It copies the data.
func (m *message) payload() []byte {
	b := make([]byte, 0, 64+len(m.event)+len(m.from)+len(m.to)+len(m.data))
	if m.binary {
		b = m.appendFields(append(b, payloadBinary))
		return append(append(b, '\n'), m.data...)
	}
	b = m.appendFields(append(b, payloadText))
	return append(append(b, `,"data":`...), m.data...)
}

func (m *message) appendFields(b []byte) []byte {
	for _, f := range []struct{ name, value string }{
		{`,"traceparent":`, m.traceparent}, // first: tracing.receive looks there
		{`,"event":`, m.event}, {`,"from":`, m.from}, {`,"to":`, m.to},
	} {
		if f.value != "" {
			b = wire.AppendString(append(b, f.name...), f.value)
		}
	}
	return b
}

var errPayload = errors.New("not a payload of this version")

// splitPayload returns the fields of a payload and, if it is binary, its data.
func splitPayload(payload string) (fields, data string, binary bool, err error) {
	if payload == "" {
		return "", "", false, errPayload
	}
	switch payload[0] {
	case payloadText:
		return payload[1:], "", false, nil
	case payloadBinary:
		fields, data, ok := strings.Cut(payload[1:], "\n")
		if ok {
			return fields, data, true, nil
		}
	}
	return "", "", false, errPayload
}

// frameSize is what a frame that delivers a message has at the most, but for
// channels whose names JSON has to escape.
func frameSize(channel, payload string) int { return len(channel) + len(payload) + 96 }

// messageFrame returns the frame that delivers a message of channel, the same
// for every receiver. Its id is left out if it is zero.
func messageFrame(channel string, id broker.ID, payload string) ([]byte, error) {
	fields, data, binary, err := splitPayload(payload)
	if err != nil {
		return nil, err
	}
	op := wire.OpText
	if binary {
		op = wire.OpBinary
	}
	size := frameSize(channel, payload)
	return wire.Frame(op, size, func(b []byte) []byte {
		b = append(b, `{"type":"message","channel":`...)
		b = wire.AppendString(b, channel)
		if !id.IsZero() {
			b = append(id.Append(append(b, `,"id":"`...)), '"')
		}
		b = append(append(b, fields...), '}')
		if binary {
			b = append(append(b, '\n'), data...)
		}
		return b
	}), nil
}

// appendHistory appends a message as an element of a history reply.
func appendHistory(b []byte, m broker.Message) ([]byte, error) {
	fields, data, binary, err := splitPayload(m.Payload)
	if err != nil {
		return b, err
	}
	b = append(m.ID.Append(append(b, `{"id":"`...)), '"')
	b = append(b, fields...)
	if binary {
		b = wire.AppendBase64(append(b, `,"data_base64":`...), []byte(data))
	}
	return append(b, '}'), nil
}

// foreignPayload makes a payload of what somebody published to a live channel
// in Redis themselves: an object with data, and perhaps an event.
func foreignPayload(s string) (string, error) {
	event, data, err := wire.DecodeLive([]byte(s))
	if err != nil {
		return "", err
	}
	m := message{event: event, data: []byte(compact(data))}
	return string(m.payload()), nil
}
