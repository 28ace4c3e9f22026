package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// halves are strings of JSON with an unpaired surrogate, which stand for no text.
var halves = []string{
	`"\ud800"`, `"\uDBFF"`, `"\udc00"`, `"\uDFFF"`, `"a\ud83dz"`, `"\ud83d\\ude00"`, `"\ud83d\n"`,
	`"\ude00\ud83d"`, `"\ud83d\ud83d\ude00"`, `"\\\ud800"`, `"\ud800\u0041"`,
}

// pairs are others that look like it.
var pairs = []string{
	`"\ud83d\ude00"`, `"\uD83D\uDE00"`, `"\\ud800"`, `"\\\\ud800"`, `"\ufffd"`, "\"\ufffd\"", `"\ud7ff\ue000"`, `"\"ud800"`, `"x\ud83d\ude00\ud83d\ude01"`,
}

// TestHalfASurrogatePairIsNoText: what encoding/json replaces would make one name of two.
func TestHalfASurrogatePairIsNoText(t *testing.T) {
	for _, field := range []string{"type", "ref", "device", "session", "channel", "to", "since", "before", "id", "event", "key"} {
		for _, half := range halves {
			_, err := Decode(fmt.Appendf(nil, `{"%s":%s,"type":"x","ref":7}`, field, half))
			if e := (*Error)(nil); !errors.As(err, &e) || e.Code != BadRequest || !strings.HasPrefix(e.Message, field+": ") || e.Ref != "7" {
				t.Errorf("%s %s: %v", field, half, err)
			}
		}
		for _, pair := range pairs {
			if _, err := Decode(fmt.Appendf(nil, `{"type":"x","%s":%s}`, field, pair)); err != nil {
				t.Errorf("%s %s: %v", field, pair, err)
			}
		}
	}
	for _, field := range []string{"channel", "to", "event", "key"} {
		for _, half := range halves {
			_, err := DecodePublication(fmt.Appendf(nil, `{"data":1,"%s":%s}`, field, half))
			if codeOf(err) != BadRequest {
				t.Errorf("publication: %s %s: %v", field, half, err)
			}
		}
		for _, pair := range pairs {
			if _, err := DecodePublication(fmt.Appendf(nil, `{"data":1,"%s":%s}`, field, pair)); err != nil {
				t.Errorf("publication: %s %s: %v", field, pair, err)
			}
		}
	}
}

// TestHalfASurrogatePairElsewhere: it is nobody's name there.
func TestHalfASurrogatePairElsewhere(t *testing.T) {
	for _, half := range halves {
		r, err := Decode(fmt.Appendf(nil, `{"type":"x",%s:%s,"other":{%s:[%s]},"data":%s}`, half, half, half, half, half))
		if err != nil || string(r.Data) != half {
			t.Errorf("%s: %+v, %v", half, r, err)
		}
		if r, err = DecodePublication(fmt.Appendf(nil, `{"data":%s}`, half)); err != nil || string(r.Data) != half {
			t.Errorf("publication: %s: %+v, %v", half, r, err)
		}
	}
}

// TestHalfASurrogatePairInChannels: a bad name costs its channel alone, so it is still
// there, and no other's.
func TestHalfASurrogatePairInChannels(t *testing.T) {
	r, err := Decode([]byte(`{"type":"connect","channels":{"room:\ud800":"","room:\ufffd":"0","room:😀":""}}`))
	if err != nil || len(r.Channels) != 3 || r.Channels["room:\ufffd"] != "0" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, ok := r.Channels["room:\xff"]; !ok {
		t.Errorf("%q", r.Channels)
	}
	if _, err := Decode([]byte(`{"type":"connect","channels":{"room:1":"\ud800"}}`)); codeOf(err) != BadRequest {
		t.Errorf("a position: %v", err)
	}
}
