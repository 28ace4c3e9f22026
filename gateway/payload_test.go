package gateway

import (
	"strings"
	"testing"

	"wssgateway/gateway/wire"
)

// TestForeignPayload: what somebody publishes in Redis themselves is taken by exact
// names.
func TestForeignPayload(t *testing.T) {
	for payload, want := range map[string]string{
		`{"event":"tick","data":{}}`:                  `t,"event":"tick","data":{}`,
		" {\"data\":{ \"n\" : [1,\n2] } } \n":         `t,"data":{"n":[1,2]}`,
		`{"data":null,"event":null}`:                  `t,"data":null`,
		`{"d\u0061ta":{"a":1,"a":2,"Data":"\ud800"}}`: `t,"data":{"a":1,"a":2,"Data":"\ud800"}`,
		`{"data":1,"Event":"a","DATA":2,"to":"b"}`:    `t,"data":1`,
		`{"data":1,"\ud800":2,"\ud800":3}`:            `t,"data":1`,
		`{"event":"\ud83d\ude00","data":"é😀"}`:        `t,"event":"😀","data":"é😀"`,
	} {
		if got, err := foreignPayload(payload); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", payload, got, err, want)
		}
	}
	for payload, want := range map[string]string{
		``:                            "invalid JSON",
		`x`:                           "invalid JSON",
		`{"data":1} {}`:               "invalid JSON",
		`null`:                        "must be an object",
		`[{"data":1}]`:                "must be an object",
		`{}`:                          "data: is required",
		`{"event":"tick"}`:            "data: is required",
		`{"Data":1}`:                  "data: is required",
		`{"data":1,"data":2}`:         `duplicate field "data"`,
		`{"data_base64":"eA=="}`:      "data: is required",
		`{"data":1,"event":5}`:        "event: must be a string",
		`{"data":1,"event":"\ud800"}`: "event: contains an unpaired surrogate",
		"{\"data\":\"\xff\"}":         "not UTF-8",
		`{"data":1,"event":"` + strings.Repeat("e", wire.MaxEvent+1) + `"}`:                        "event: must have at most",
		`{"data":` + strings.Repeat("[", wire.MaxDepth) + strings.Repeat("]", wire.MaxDepth) + `}`: "nested deeper",
	} {
		if got, err := foreignPayload(payload); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %.60s, %v, want %s", payload, got, err, want)
		}
	}
}
