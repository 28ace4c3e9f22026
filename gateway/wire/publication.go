package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

const base64Field = `"data_base64"`

// The fields of a message that a backend publishes, be it through a node or to a live
// channel in Redis.
var (
	publicationFields = []string{`"channel"`, `"to"`, `"event"`, `"data"`, base64Field, `"key"`}
	liveFields        = []string{`"event"`, `"data"`}
)

// publication is a message of a backend while it is decoded.
type publication struct {
	Request
	fields []string
	others bool   // fields that are not known are ignored: nobody would hear of them
	given  uint   // bit i: fields[i]
	base64 []byte // what data_base64 gives; nil if absent
}

// DecodePublication decodes a message that a backend publishes, which is to hear of
// every field that it has misspelled or given twice. Data may be a part of what was
// decoded.
func DecodePublication(b []byte) (Request, error) {
	p := publication{Request: Request{Type: "publish"}, fields: publicationFields}
	if err := p.decode(b); err != nil {
		return Request{}, badRequest("", "%s", err)
	}
	if (p.Data == nil) == (p.base64 == nil) {
		return Request{}, badRequest("", "data and data_base64: give one of them")
	}
	if p.Binary {
		p.Data = p.base64
	}
	return p.Request, nil
}

// DecodeLive decodes in the same way what somebody publishes to a live channel in Redis:
// data, perhaps an event, and what else there may be, which means nothing.
func DecodeLive(b []byte) (event string, data []byte, err error) {
	p := publication{fields: liveFields, others: true}
	if err := p.decode(b); err != nil {
		return "", nil, err
	}
	if p.Data == nil {
		return "", nil, errors.New("data: is required")
	}
	return p.Event, p.Data, nil
}

func (p *publication) decode(b []byte) error {
	switch {
	case !utf8.Valid(b):
		return errors.New("not UTF-8")
	case !json.Valid(b):
		return errors.New("not a message: invalid JSON")
	}
	b = b[skipSpace(b, 0):]
	if b[0] != '{' {
		return errors.New("not a message: must be an object")
	}
	if err := members(b, p.take); err != nil {
		return fmt.Errorf("not a message: %w", err)
	}
	if TooDeep(b) {
		return fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	return nil
}

// take takes in one field.
func (p *publication) take(name, value []byte) error {
	name, err := unescaped(name)
	i := slices.Index(p.fields, string(name))
	if i < 0 && p.others {
		return nil
	}
	if err != nil {
		return err
	}
	field := name[1 : len(name)-1]
	switch {
	case i < 0:
		return fmt.Errorf("unknown field %s", quoted(field))
	case p.given&(1<<i) != 0:
		return fmt.Errorf("duplicate field %q", field)
	}
	p.given |= 1 << i
	if p.fields[i] != base64Field {
		err = p.set(name, value)
	} else if string(value) != "null" {
		p.base64, err = base64Of(value)
		p.Binary = true
	}
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// quoted returns the name of a field, no longer than it takes to find it.
func quoted(name []byte) string {
	const most = 64
	if len(name) > most {
		return fmt.Sprintf("%q…", name[:most])
	}
	return fmt.Sprintf("%q", name)
}

func base64Of(value []byte) ([]byte, error) {
	s, err := str(value)
	if err != nil {
		return nil, err
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("is not base64")
	}
	return data, nil
}
