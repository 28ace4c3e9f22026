package gateway_test

import (
	"strings"
	"testing"
)

// TestAPINamesUnknownFields: what a backend has misspelled is not passed over, be it
// only in case, nor is a field that it gives twice (finding U7), nor a name that is no text.
func TestAPINamesUnknownFields(t *testing.T) {
	t.Parallel()
	n := startOne(t)
	c, _ := n.connect(t, "alice", "channel=room:1")
	for body, names := range map[string]string{
		`{"channel":"room:1","evnet":"chat","data":1}`:             `unknown field "evnet"`,
		`{"Channel":"room:1","data":1}`:                            `unknown field "Channel"`,
		`{"channel":"room:1","DATA":1}`:                            `unknown field "DATA"`,
		`{"channel":"room:1","data":1,"\u212aey":"k"}`:             `unknown field "Key"`,
		`{"channel":"room:\ud800","data":1}`:                       `channel: contains an unpaired surrogate`,
		`{"to":"b\udc00b","data":1}`:                               `to: contains an unpaired surrogate`,
		`{"channel":"room:1","data":1,"key":"\ud83d\ud83d"}`:       `key: contains an unpaired surrogate`,
		`{"channel":"room:1","data":1,"":1}`:                       `unknown field ""`,
		`{"channel":"room:2","channel":"room:1","data":1}`:         `duplicate field "channel"`,
		`{"channel":"room:1","data":1,"data":2}`:                   `duplicate field "data"`,
		`{"channel":"room:1","data":1,"d\u0061ta":2}`:              `duplicate field "data"`,
		`{"channel":"room:1","event":null,"event":"e","data":1}`:   `duplicate field "event"`,
		`{"channel":"room:1","data_base64":"","data_base64":null}`: `duplicate field "data_base64"`,
	} {
		status, answer := n.call(t, "POST", "/v1/publish", body)
		expectProblem(t, status, answer, "bad_request")
		if detail := frame(answer.(map[string]any)).str("detail"); !strings.Contains(detail, names) {
			t.Errorf("%s: %q does not say %s", body, detail, names)
		}
		_, answer = n.call(t, "POST", "/v1/publish", "["+body+`,{"channel":"room:2","data":1}]`)
		answers, _ := answer.([]any)
		if len(answers) != 2 {
			t.Fatalf("%v", answer)
		}
		expectProblem(t, 400, answers[0], "bad_request")
		expectHas(t, answers[1].(map[string]any), frame{"id": true})
	}
	c.quiet()                                                                  // nothing of it was published
	n.publish(t, `{"ch\u0061nnel":"room:1","data":{"a":1,"a":2,"Channel":3}}`) // data are the backend's own
	expectHas(t, c.expect("message"), frame{"channel": "room:1"})
}
