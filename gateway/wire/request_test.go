package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSplit(t *testing.T) {
	for frame, want := range map[string][]string{
		`{"type":"ping"}`:             {`{"type":"ping"}`},
		" \t\r\n{} \n":                {"{} \n"},
		`5`:                           {`5`},
		`[{}]`:                        {`{}`},
		` [ {"a":[1,"]"]} , 5,"x" ] `: {`{"a":[1,"]"]}`, `5`, `"x"`},
		`[[],[[{}]]]`:                 {`[]`, `[[{}]]`},
		`["\"]","\\",{"\\\"":"}"}]`:   {`"\"]"`, `"\\"`, `{"\\\"":"}"}`},
	} {
		requests, err := Split([]byte(frame))
		var got []string
		for _, r := range requests {
			got = append(got, string(r))
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", frame, got, err, want)
		}
	}
	for _, bad := range []string{``, ` `, `{`, `[]`, `[ ]`, `[1,]`, `{} {}`, `[` + strings.Repeat(`1,`, MaxRequests) + `1]`} {
		if _, err := Split([]byte(bad)); codeOf(err) != BadRequest {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	if got, err := Split([]byte(`[` + strings.Repeat(`1,`, MaxRequests-1) + `1]`)); len(got) != MaxRequests {
		t.Errorf("got %d requests, %v", len(got), err)
	}
}

func codeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestDecode(t *testing.T) {
	got, err := Decode([]byte(`{"type":"publish","ref":"r","token":"t","device":"d","session":"s","channels":{"a":"0","\u0062":null},` +
		`"channel":"c","to":"u","since":"1-0","event":"e","key":"k","data":{"x" : 1},"limit":5,"other":[{}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got.Type != "publish" || got.Ref != `"r"` || got.Token != "t" || got.Device != "d" || got.Session != "s" ||
		len(got.Channels) != 2 || got.Channels["a"] != "0" || got.Channel != "c" || got.To != "u" || got.Since != "1-0" ||
		got.Event != "e" || got.Key != "k" || !got.HasKey || string(got.Data) != `{"x" : 1}` || got.Limit != 5 || got.Binary {
		t.Errorf("got %+v", got)
	}
	got, err = Decode([]byte(`{"type":"x","ref":null,"token":null,"device":null,"session":null,"channels":null,"channel":null,` +
		`"to":null,"since":null,"event":null,"key":null,"limit":null}`))
	if err != nil || got.HasKey || got.Ref != "" || got.Channels != nil || got.Limit != 0 || got.Data != nil {
		t.Errorf("null is not as good as absent: %+v, %v", got, err)
	}
}

func TestDecodeKeepsTheRefOfAMistake(t *testing.T) {
	for request, ref := range map[string]Ref{
		`{"ref":1,"type":5}`:                     `1`,
		`{"type":5,"ref":1}`:                     `1`,
		`{"ref":"x"}`:                            `"x"`,
		`{"type":"x","ref":{}}`:                  ``,
		`{"type":"x","limit":"5","ref":-7}`:      `-7`,
		`{"type":"x","event":[],"ref":"\u0078"}`: `"\u0078"`,
		`5`:                                      ``,
	} {
		_, err := Decode([]byte(request))
		var e *Error
		if !errors.As(err, &e) || e.Ref != ref || e.Code != BadRequest || e.Message == "" {
			t.Errorf("%s: got %+v, want ref %s", request, err, ref)
		}
	}
}

// TestDecodeRefusesWhatIsTooDeep: data is passed on to parsers that may call themselves
// for each level (finding L8).
func TestDecodeRefusesWhatIsTooDeep(t *testing.T) {
	nested := func(levels int) string {
		pairs := levels / 2
		inner := strings.Repeat("[", levels%2) + strings.Repeat("]", levels%2)
		if inner == "" {
			inner = `"{[{\"["`
		}
		return strings.Repeat(`{"a":[`, pairs) + inner + strings.Repeat(`]}`, pairs)
	}
	for _, levels := range []int{0, 1, MaxDepth - 2, MaxDepth - 1} {
		if got, err := Decode([]byte(`{"type":"publish","data":` + nested(levels) + `}`)); err != nil || string(got.Data) != nested(levels) {
			t.Errorf("%d levels: %v", levels, err)
		}
	}
	for _, levels := range []int{MaxDepth, MaxDepth + 1, 9_000} {
		for _, request := range []string{
			`{"type":"publish","data":` + nested(levels) + `,"ref":7}`, `{"ref":7,"type":"publish","other":` + nested(levels) + `}`,
		} {
			_, err := Decode([]byte(request))
			if e := (*Error)(nil); !errors.As(err, &e) || e.Code != BadRequest || e.Ref != "7" {
				t.Errorf("%d levels: %v", levels, err)
			}
		}
	}
	wide := `{"type":"publish","data":[` + strings.Repeat(`[{"a":[]}],`, 1000) + `0]}`
	if _, err := Decode([]byte(wide)); err != nil {
		t.Errorf("wide and not deep: %v", err)
	}
}

func TestDecodeBinary(t *testing.T) {
	got, err := DecodeBinary([]byte(" {\"type\":\"publish\"} \r\n\x00\n\xff"))
	if err != nil || !got.Binary || string(got.Data) != "\x00\n\xff" {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = DecodeBinary([]byte("{\"type\":\"publish\"}\n"))
	if err != nil || !got.Binary || got.Data == nil || len(got.Data) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "\n", "{}", "{\"type\":\"x\"}", "x\n", "[{\"type\":\"x\"}]\n", "{\"type\":\"x\",\"data\":1}\n", "{\"type\":\"\xff\"}\n"} {
		if _, err := DecodeBinary([]byte(bad)); codeOf(err) != BadRequest {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// within reports whether part is a piece of whole's memory.
func within(whole, part []byte) bool {
	for i := 0; i+len(part) <= len(whole); i++ {
		if len(part) > 0 && &whole[i] == &part[0] {
			return true
		}
	}
	return false
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"type":"connect","ref":1,"token":"t","device":"phone","session":"s_","channels":{"room:42":"1763672400123-0","room:7":""}}`,
		`{"type":"publish","ref":"x","channel":"room:42","event":"chat","data":{"text":"hi","a":[1,2,{"b":null}]},"key":"c1-88"}`,
		`[{"type":"ping","ref":10},{"type":"history","limit":50,"since":"0"},5,"\"]",[[]]]`,
		"{\"\\u0074ype\":\"\\ud800\",\"data\":\"\\\\\\\"}\"}", "{\"type\":\"publish\"}\n\x00\xff", "[]", "null", " {} ", "", "{\"ref\":9007199254740993}",
		strings.Repeat("[", 50) + strings.Repeat("]", 50),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		original := bytes.Clone(frame)
		if r, err := DecodeBinary(frame); err != nil {
			checkError(t, err)
		} else if !r.Binary || r.Data == nil || !bytes.HasSuffix(frame, r.Data) {
			t.Errorf("data %q", r.Data)
		}
		if utf8.Valid(frame) { // what else is refused before
			checkText(t, frame)
		}
		if !bytes.Equal(frame, original) {
			t.Error("the frame was changed")
		}
	})
}

func checkText(t *testing.T, frame []byte) {
	requests, err := Split(frame)
	if err != nil {
		checkError(t, err)
		if json.Valid(frame) && bytes.TrimLeft(frame, " \t\r\n")[0] != '[' {
			t.Errorf("%q is refused", frame)
		}
		return
	}
	for _, request := range requests {
		if !json.Valid(request) || !within(frame, request) {
			t.Fatalf("request %q", request)
		}
		r, err := Decode(request)
		if err != nil {
			checkError(t, err)
			continue
		}
		checkRequest(t, request, r)
	}
}

// checkRequest compares with what encoding/json makes of a request.
func checkRequest(t *testing.T, request []byte, r Request) {
	if r.Data != nil && (!json.Valid(r.Data) || !within(request, r.Data)) {
		t.Errorf("data %q", r.Data)
	}
	if r.Ref != "" && !json.Valid([]byte(r.Ref)) {
		t.Errorf("ref %q", r.Ref)
	}
	if len(r.Event) > MaxEvent || len(r.Key) > MaxKey || len(r.Device) > MaxDevice || r.Limit < 0 || r.Limit > MaxHistory {
		t.Errorf("out of bounds: %+v", r)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(request, &fields); err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	for name, got := range map[string]string{
		"type": r.Type, "token": r.Token, "session": r.Session, "device": r.Device, "channel": r.Channel,
		"to": r.To, "since": r.Since, "id": r.ID, "event": r.Event, "key": r.Key,
	} {
		var want string
		if raw, ok := fields[name]; ok {
			if err := json.Unmarshal(raw, &want); err != nil {
				t.Errorf("%s: %s was taken for %q", name, raw, got)
			}
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if !bytes.Equal(r.Data, fields["data"]) {
		t.Errorf("data %q, want %q", r.Data, fields["data"])
	}
}

func checkError(t *testing.T, err error) {
	var e *Error
	if !errors.As(err, &e) || e.Code != BadRequest || e.Message == "" {
		t.Fatalf("error %#v", err)
	}
	if e.Ref != "" && !json.Valid([]byte(e.Ref)) {
		t.Errorf("ref %q", e.Ref)
	}
	if frame := NewObject("error", e.Ref).Str("message", e.Message).Frame(); !json.Valid(payloadOf(frame)) || !utf8.Valid(frame[2:]) && len(frame) < 120 {
		t.Errorf("frame %q", frame)
	}
}

func BenchmarkDecode(b *testing.B) {
	request := []byte(`{"type":"publish","ref":4,"channel":"room:42","event":"chat","data":{"text":"hi"},"key":"c1-88"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(request); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDecodeAllocatesOnlyItsStrings(t *testing.T) {
	request := []byte(`{"type":"publish","ref":4,"channel":"room:42","event":"chat","data":{"text":"hi"},"key":"c1-88"}`)
	const stringsInIt = 5
	got := testing.AllocsPerRun(100, func() {
		if r, err := Decode(request); err != nil || r.Data == nil {
			t.Fatal(err)
		}
	})
	if got > stringsInIt+1 { // and the request, which the field's closure holds
		t.Errorf("%v allocations", got)
	}
}
