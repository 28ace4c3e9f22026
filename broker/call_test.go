package broker

import (
	"errors"
	"testing"
)

// testCalls: entries are added, bounded, and make room when they are acknowledged.
func testCalls(t *testing.T, p pair) {
	call := func(n *node, stream string) error {
		return n.Call(t.Context(), Call{Stream: stream, Fields: []string{"user", "alice", "data", "{}"}, MaxLen: 3, Streams: 2})
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
	if err := call(p.b, "mails"); err != nil {
		t.Errorf("a second stream: %v", err)
	}
	if err := call(p.a, "third"); !errors.Is(err, ErrNoStream) {
		t.Errorf("a third one of two: %v", err)
	}
	if err := call(p.a, "mails"); err != nil {
		t.Errorf("a stream that another node has begun: %v", err)
	}
}
