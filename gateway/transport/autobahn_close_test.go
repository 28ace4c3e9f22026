package transport

import (
	"encoding/binary"
	"fmt"
	"strings"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

func clientClose(payload string) []byte { return wiretest.ClientFrame(wire.OpClose, payload) }

// Sections 7.1 to 7.5.
func closeHandling() []autobahnCase {
	const normal = "\x03\xe8"
	hello := "Hello World!"
	big := strings.Repeat("BAsd7&jh23", 26*1024+200)[:256<<10]
	return []autobahnCase{
		{name: "7.1.1", send: frames(clientText(hello), clientClose(normal)), want: []string{"text " + hello}, code: wire.CloseNormal},
		{name: "7.1.2", send: frames(clientClose(normal), clientClose(normal)), code: wire.CloseNormal},
		{name: "7.1.3", send: frames(clientClose(normal), clientPing("")), code: wire.CloseNormal},
		{name: "7.1.4", send: frames(clientClose(normal), clientText(hello)), code: wire.CloseNormal},
		{name: "7.1.5", send: frames(wiretest.Masked(byte(wire.OpText), "fragment1"), clientClose(normal), wiretest.Masked(fin, "fragment2")),
			code: wire.CloseNormal},
		{name: "7.1.6", send: frames(clientText(big), clientClose(normal), clientPing("")), limit: len(big), want: []string{"text " + big}, code: wire.CloseNormal},
		{name: "7.1.6 over the limit", send: frames(clientText(big), clientClose(normal), clientPing("")), code: wire.CloseTooBig},
		{name: "7.3.1", send: frames(clientClose("")), code: wire.CloseNoStatus},
		{name: "7.3.2", send: frames(clientClose("a")), code: wire.CloseProtocol},
		{name: "7.3.3", send: frames(clientClose(normal)), code: wire.CloseNormal},
		{name: "7.3.4", send: frames(clientClose(normal + hello)), code: wire.CloseNormal},
		{name: "7.3.5", send: frames(clientClose(normal + strings.Repeat("*", 123))), code: wire.CloseNormal},
		{name: "7.3.6", send: frames(clientClose(normal + strings.Repeat("*", 124))), code: wire.CloseProtocol},
		{name: "7.5.1", send: frames(clientClose(normal + "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")), code: wire.CloseInvalidData},
	}
}

// Sections 7.7, 7.9 and 7.13.
func closeCodes() (cases []autobahnCase) {
	add := func(section string, sent []uint16, answer wire.CloseCode) {
		for i, code := range sent {
			c := autobahnCase{name: fmt.Sprintf("%s.%d", section, i+1), code: answer}
			if c.send = frames(clientClose(string(binary.BigEndian.AppendUint16(nil, code)))); answer == 0 {
				c.code = wire.CloseCode(code)
			}
			cases = append(cases, c)
		}
	}
	add("7.7", []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999}, 0)
	add("7.9", []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999}, wire.CloseProtocol)
	add("7.13", []uint16{5000, 65535}, wire.CloseProtocol) // "informational"
	return cases
}

// Sections 9.1 to 9.6, and 10.
func limits() (cases []autobahnCase) {
	const limit, most = 1 << 20, 4 << 20
	for section, first := range []byte{byte(wire.OpText), byte(wire.OpBinary)} {
		kind, filler := "text ", "*"
		if section == 1 {
			kind, filler = "binary ", "\xfe"
		}
		add := func(group, i int, c autobahnCase) {
			c.name, c.limit = fmt.Sprintf("9.%d.%d", group+section, i+1), limit
			cases = append(cases, c)
		}
		for i, size := range []int{64 << 10, 256 << 10, limit, most, 8 << 20, 16 << 20} {
			payload := strings.Repeat(filler, size)
			c := autobahnCase{send: frames(wiretest.Masked(fin|first, payload)), want: []string{kind + payload}}
			if size > limit { // refused by the header
				c = autobahnCase{send: frames(announce(fin|first, uint64(size), 8)), code: wire.CloseTooBig}
			}
			add(1, i, c)
		}
		payload := strings.Repeat(filler, limit)
		for i := range 9 {
			size := 64 << (2 * i)
			c := autobahnCase{send: fragments(first, payload, size), want: []string{kind + payload}}
			if limit/size > maxFragments {
				c.want, c.code = nil, wire.ClosePolicy
			}
			add(3, i, c)
		}
		for i := range 6 {
			short := payload[:64<<10]
			add(5, i, autobahnCase{send: frames(wiretest.Masked(fin|first, short)), chop: chop(64 << i), want: []string{kind + short}})
		}
	}
	big := strings.Repeat("*", 65_536)
	return append(cases, autobahnCase{name: "10.1.1", send: fragments(byte(wire.OpText), big, 1300), want: []string{"text " + big}})
}

// Sections 9.7 and 9.8.
func roundTrips() (cases []autobahnCase) {
	for i, size := range []int{0, 16, 64, 256, 1024, 4096} {
		stars, bytes := strings.Repeat("*", size), strings.Repeat("\xfe", size)
		texts, binaries := autobahnCase{name: fmt.Sprint("9.7.", i+1)}, autobahnCase{name: fmt.Sprint("9.8.", i+1)}
		for range 20 {
			texts.send, texts.want = append(texts.send, clientText(stars), nil), append(texts.want, "text "+stars)
			binaries.send, binaries.want = append(binaries.send, clientBinary(bytes), nil), append(binaries.want, "binary "+bytes)
		}
		cases = append(cases, texts, binaries)
	}
	return cases
}
