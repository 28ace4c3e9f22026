package wire

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestDecodePublication(t *testing.T) {
	got, err := DecodePublication([]byte(" {\"ch\\u0061nnel\":\"c\",\"to\":\"u\",\"event\":\"e\",\"key\":\"\",\"data\":{\"x\" : 1,\"x\":2,\"X\":3}} \n"))
	if err != nil || got.Type != "publish" || got.Channel != "c" || got.To != "u" || got.Event != "e" ||
		!got.HasKey || got.Key != "" || got.Binary || string(got.Data) != `{"x" : 1,"x":2,"X":3}` {
		t.Errorf("got %+v, %v", got, err)
	}
	for message, data := range map[string]string{
		`{"data_base64":"AAEK/w==","data":null}`: "", // null is JSON
		`{"data_base64":"AAEK/w=="}`:             "\x00\x01\n\xff",
		`{"data_base64":"\u0041A=="}`:            "\x00",
	} {
		got, err := DecodePublication([]byte(message))
		if (err == nil) != (data != "") || string(got.Data) != data || got.Binary != (data != "") {
			t.Errorf("%s: got %+v, %v", message, got, err)
		}
	}
	got, err = DecodePublication([]byte(`{"data_base64":"","channel":null,"key":null}`))
	if err != nil || got.Data == nil || len(got.Data) > 0 || !got.Binary || got.HasKey {
		t.Errorf("no bytes: got %+v, %v", got, err)
	}
	got, err = DecodePublication([]byte(`{"data_base64":null,"data":null}`))
	if err != nil || string(got.Data) != "null" || got.Binary {
		t.Errorf("null: got %+v, %v", got, err)
	}
}

func TestDecodePublicationMistakes(t *testing.T) {
	for message, want := range map[string]string{
		``:                                    "invalid JSON",
		`{} {}`:                               "invalid JSON",
		"{\"data\":\"\xff\"}":                 "not UTF-8",
		` [{"data":1}]`:                       "must be an object",
		`null`:                                "must be an object",
		`{}`:                                  "data and data_base64: give one of them",
		`{"data":1,"data_base64":"eA=="}`:     "data and data_base64: give one of them",
		`{"data_base64":5}`:                   "data_base64: must be a string",
		`{"data_base64":"!"}`:                 "data_base64: is not base64",
		`{"data":1,"Channel":"c"}`:            `unknown field "Channel"`,
		`{"data":1,"type":"publish"}`:         `unknown field "type"`, // a client's
		`{"data":1,"chann\u0065L":"c"}`:       `unknown field "channeL"`,
		`{"data":1,"\"data\"":1}`:             `unknown field "\"data\""`,
		`{"data":1,"\n":1}`:                   `unknown field "\n"`,
		`{"data":1,"data":1}`:                 `duplicate field "data"`,
		`{"data":1,"key":"a","k\u0065y":"a"}`: `duplicate field "key"`,
		`{"data":1,"channel":5}`:              "channel: must be a string",
		`{"data":1,"key":"` + strings.Repeat("k", MaxKey+1) + `"}`:                              "key: must have at most",
		`{"` + strings.Repeat("f", 65) + `":1}`:                                                 `unknown field "` + strings.Repeat("f", 64) + `"…`,
		`{"data":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + `}`:        "nested deeper",
		`{"data":{"a":1},"data_base64":null,"event":"` + strings.Repeat("e", MaxEvent+1) + `"}`: "event: must have at most",
	} {
		_, err := DecodePublication([]byte(message))
		if e := (*Error)(nil); !errors.As(err, &e) || e.Code != BadRequest || !strings.Contains(e.Message, want) {
			t.Errorf("%.80s: got %v, want %s", message, err, want)
		}
	}
}

// TestDecodingAPublicationCopiesNoData: what is paid for each message of a backend.
func TestDecodingAPublicationCopiesNoData(t *testing.T) {
	message := []byte(`{"channel":"room:42","event":"chat","data":{"text":"` + strings.Repeat("x", 16<<10) + `"},"key":"order-7"}`)
	got, err := DecodePublication(message)
	if err != nil || !within(message, got.Data) {
		t.Fatalf("%v", err)
	}
	if allocs := testing.AllocsPerRun(100, func() { _, _ = DecodePublication(message) }); allocs > 3 {
		t.Errorf("%v allocations: channel, event and key have one each", allocs)
	}
}

func FuzzDecodePublication(f *testing.F) {
	for _, seed := range []string{
		`{"channel":"room:42","event":"chat","data":{"text":"hi","a":[1,2,{"b":null}]},"key":"order-7"}`,
		`{"to":"bob","data_base64":"AQL/"}`, `{"Channel":"c","data":1}`, `{"data":1,"d\u0061ta":2}`,
		" {\"\\ud800\":\"\\\\\\\"}\"}", "[]", "null", "", `{"data":"\ud800"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		got, err := DecodePublication(message)
		if err != nil {
			if codeOf(err) != BadRequest {
				t.Errorf("%v", err)
			}
			return
		}
		var other struct{ Channel, To, Event, Key string }
		if err := json.Unmarshal(message, &other); err != nil || other.Channel != got.Channel ||
			other.To != got.To || other.Event != got.Event || other.Key != got.Key {
			t.Errorf("got %+v, encoding/json has %+v, %v", got, other, err)
		}
		if !got.Binary && !json.Valid(got.Data) {
			t.Errorf("data %q", got.Data)
		}
	})
}

func BenchmarkDecodePublication(b *testing.B) {
	message := []byte(`{"channel":"room:42","event":"chat","data":{"text":"hi"},"key":"order-7"}`)
	b.ReportAllocs()
	for b.Loop() {
		if got, err := DecodePublication(message); err != nil || got.Channel != "room:42" {
			b.Fatal(got, err)
		}
	}
}
