package broker

import (
	"errors"
	"strings"
	"testing"
)

// testCalls: entries are added, bounded, and make room when they are acknowledged.
func testCalls(t *testing.T, p pair) {
	call := func(n *node, stream string) error {
		return n.Call(t.Context(), Call{Stream: stream, Fields: []string{"user", "alice", "data", "{}"}, MaxLen: 3, MaxBytes: 1 << 20})
	}
	if err := call(p.a, "orders"); !errors.Is(err, ErrNoStream) {
		t.Errorf("a stream that nobody has made: %v", err)
	}
	key := p.b.layout.calls("orders")[0]
	if _, err := p.b.batch.do(t.Context(), "XGROUP", "CREATE", key, "g", "$", "MKSTREAM"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := call([]*node{p.a, p.b}[i%2], "orders"); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if err := call(p.a, "orders"); !errors.Is(err, ErrCallsFull) {
		t.Errorf("the fourth of three: %v", err)
	}
	read, err := p.b.batch.do(t.Context(), "XREADGROUP", "GROUP", "g", "c", "COUNT", 2, "STREAMS", key, ">")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range read.([]any)[0].([]any)[1].([]any) {
		if _, err := p.b.batch.do(t.Context(), "XACK", key, "g", e.([]any)[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := call(p.a, "orders"); err != nil {
		t.Errorf("after two were acknowledged: %v", err)
	}
	if n, err := p.b.batch.do(t.Context(), "XLEN", key); n != int64(2) || err != nil {
		t.Errorf("%v entries are left, %v", n, err)
	}
	mails := Call{Stream: "mails", Fields: []string{"user", "alice"}, Begin: true, MaxLen: 3, MaxBytes: 1 << 20}
	if err := p.b.Call(t.Context(), mails); err != nil {
		t.Errorf("a stream that may be begun: %v", err)
	}
	if err := call(p.a, "mails"); err != nil {
		t.Errorf("once it is there: %v", err)
	}
	if n, err := p.b.batch.do(t.Context(), "EXISTS", p.b.layout.calls("orders")[2]); n != int64(1) || err != nil {
		t.Errorf("cost of a stream with entries: %v, %v", n, err)
	}
}

// testCallsAreBoundedInBytes: what waits takes no more than it may, be it large or
// small, and what is acknowledged or deleted makes room.
func testCallsAreBoundedInBytes(t *testing.T, p pair) {
	const bound = 256 << 10
	keys := p.a.layout.calls("big")
	do := func(args ...any) any {
		t.Helper()
		reply, err := p.a.batch.do(t.Context(), args...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return reply
	}
	fill := func(size int) (added int) {
		c := Call{Stream: "big", Fields: []string{"data", strings.Repeat("x", size)}, MaxLen: 100_000, MaxBytes: bound}
		for ; ; added++ {
			if err := p.a.Call(t.Context(), c); errors.Is(err, ErrCallsFull) {
				return added
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	do("XGROUP", "CREATE", keys[0], "g", "$", "MKSTREAM")
	large := fill(16 << 10)
	if large < 10 || large > 16 {
		t.Errorf("%d calls of 16 KiB in %d bytes", large, bound)
	}
	// Half is acknowledged, and what was large is filled up by what is small.
	read := do("XREADGROUP", "GROUP", "g", "c", "COUNT", large/2, "STREAMS", keys[0], ">")
	for _, e := range read.([]any)[0].([]any)[1].([]any) {
		do("XACK", keys[0], "g", e.([]any)[0])
	}
	small := fill(10)
	if small < 100 || small > 1000 {
		t.Errorf("%d small calls in half of %d bytes", small, bound)
	}
	if again := fill(10); again != 0 {
		t.Errorf("a full stream took %d", again)
	}
	// A worker that deletes what it has acknowledged.
	read = do("XREADGROUP", "GROUP", "g", "c", "COUNT", 10_000, "STREAMS", keys[0], ">")
	for _, e := range read.([]any)[0].([]any)[1].([]any) {
		do("XACK", keys[0], "g", e.([]any)[0])
		do("XDEL", keys[0], e.([]any)[0])
	}
	if large := fill(16 << 10); large < 10 {
		t.Errorf("an empty stream took %d", large)
	}
}
