package transport

import (
	"fmt"
	"strings"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// Sections 6.1 to 6.4.
func utf8Handling() []autobahnCase {
	const (
		hello   = "Hello-µ@ßöäüàá-UTF-8!!"
		kosme   = "\u03ba\u1f79\u03c3\u03bc\u03b5"
		invalid = kosme + "\xed\xa0\x80edited"
	)
	op := byte(wire.OpText)
	beyond := frames(wiretest.Masked(op, kosme), wiretest.Masked(0, "\xf4\x90\x80\x80"), wiretest.Masked(fin, "edited"))
	split := frames(wiretest.Masked(op, kosme+"\xf4"), wiretest.Masked(0, "\x90"), wiretest.Masked(fin, "\x80\x80edited"))
	code := wire.CloseInvalidData
	return []autobahnCase{
		{name: "6.1.1", send: frames(clientText("")), want: []string{"text "}},
		{name: "6.1.2", send: frames(wiretest.Masked(op, ""), wiretest.Masked(0, ""), wiretest.Masked(fin, "")), want: []string{"text "}},
		{name: "6.1.3", send: frames(wiretest.Masked(op, ""), wiretest.Masked(0, "middle frame payload"), wiretest.Masked(fin, "")),
			want: []string{"text middle frame payload"}},
		{name: "6.2.1", send: frames(clientText(hello)), want: []string{"text " + hello}},
		{name: "6.2.2", send: fragments(op, hello, len("Hello-µ@ßöä")), want: []string{"text " + hello}},
		{name: "6.2.3", send: fragments(op, hello, 1), want: []string{"text " + hello}},
		{name: "6.2.4", send: fragments(op, kosme, 1), want: []string{"text " + kosme}},
		{name: "6.3.1", send: frames(clientText(invalid)), code: code},
		{name: "6.3.2", send: fragments(op, invalid, 1), code: code},
		{name: "6.4.1", send: beyond, chop: frameWise, code: code},
		{name: "6.4.2", send: split, chop: frameWise, code: code},
		{name: "6.4.3", send: frames(clientText(kosme + "\xf4\x90\x80\x80edited")), chop: chop(len(kosme) + 6), code: code},
		{name: "6.4.4", send: frames(clientText(kosme + "\xf4\x90\x80\x80edited")), chop: octetWise, code: code},
	}
}

// sequences are of UTF-8, or not, as of Kuhn's "UTF-8 decoder capability and stress
// test": sections 6.5 to 6.23.
func sequences() []struct {
	valid []bool // of each, or of all
	all   []string
} {
	yes, no := []bool{true}, []bool{false}
	const kosme = "\u03ba\u1f79\u03c3\u03bc\u03b5"
	var prefixes []string
	var prefixValid []bool
	for i := 1; i <= len(kosme); i++ {
		prefixes = append(prefixes, kosme[:i])
		prefixValid = append(prefixValid, i == 2 || i == 5 || i == 7 || i == 9 || i == 11)
	}
	run := func(from, to int, after string) (s string) {
		for b := from; b < to; b++ {
			s += string([]byte{byte(b)}) + after
		}
		return s
	}
	incomplete := []string{"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf"}
	nonCharacters := []string{"\ufffe", "\uffff"}
	for plane := rune(1); plane <= 16; plane++ {
		nonCharacters = append(nonCharacters, string(plane<<16|0xFFFE), string(plane<<16|0xFFFF))
	}
	return []struct {
		valid []bool
		all   []string
	}{
		{yes, []string{"hello\x24world", "hello¢world", "hello€world", "hello\U00024b62world", kosme}}, // 6.5
		{prefixValid, prefixes},
		{yes, []string{"\x00", "\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80"}},
		{no, []string{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"}},
		{yes, []string{"\x7f", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"}},
		{no, []string{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"}}, // 6.10
		{[]bool{true, true, true, true, false}, []string{"\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80"}},
		{no, []string{"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf", run(0x80, 0xBF, "")}},
		{no, []string{run(0xC0, 0xDF, " "), run(0xE0, 0xEF, " "), run(0xF0, 0xF7, " "), run(0xF8, 0xFB, " "), run(0xFC, 0xFD, " ")}},
		{no, incomplete},
		{no, []string{strings.Join(incomplete, "")}}, // 6.15
		{no, []string{"\xfe", "\xff", "\xfe\xfe\xff\xff"}},
		{no, []string{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}},
		{no, []string{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"}},
		{no, []string{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"}},
		{no, []string{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"}}, // 6.20
		{no, []string{"\xed\xa0\x80\xed\xb0\x80", "\xed\xa0\x80\xed\xbf\xbf", "\xed\xad\xbf\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf",
			"\xed\xae\x80\xed\xb0\x80", "\xed\xae\x80\xed\xbf\xbf", "\xed\xaf\xbf\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf"}},
		{yes, nonCharacters},
		{yes, []string{"\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff"}}, // 6.23
	}
}

func utf8Sequences() (cases []autobahnCase) {
	for i, group := range sequences() {
		for j, s := range group.all {
			c := autobahnCase{name: fmt.Sprintf("6.%d.%d", i+5, j+1), send: frames(clientText(s))}
			if group.valid[j%len(group.valid)] {
				c.want = []string{"text " + s}
			} else {
				c.code = wire.CloseInvalidData
			}
			cases = append(cases, c)
		}
	}
	return cases
}
