package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDecodeAllocatesNothing(t *testing.T) {
	b := &Broker{}
	payload := "\x011763672400124-0 1763672400123-7 1763672400124567\n{}"
	var m Message
	var err error
	allocs := testing.AllocsPerRun(100, func() { m, err = b.decode(payload) })
	want := Message{
		ID: ID{1763672400124, 0}, Prev: ID{1763672400123, 7},
		At: time.UnixMicro(1763672400124567), Payload: "{}",
	}
	if err != nil || m != want {
		t.Errorf("decode = %+v, %v, want %+v", m, err, want)
	}
	if allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestLiveEnvelopeIsDecoded(t *testing.T) {
	b := &Broker{}
	begin := time.Now().Truncate(time.Microsecond)
	m, err := b.decode(string(b.encodeLive([]byte("a\nb"))))
	if err != nil || m.Payload != "a\nb" || !m.ID.IsZero() || m.Foreign {
		t.Errorf("decode = %+v, %v", m, err)
	}
	if m.At.Before(begin) || m.At.After(time.Now()) {
		t.Errorf("stamped %v, want now", m.At)
	}
}

// FuzzDecode checks that whatever comes over pub/sub is either somebody else's,
// or refused, or exactly what an envelope says.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "\x01", "\x01\n", "\x017-1 7-0 1\nx", "\x010-0 0-0 1 later\n", "\x0107-1 7-0 1\nx",
		"\x0118446744073709551615-0 0-0 -1\n", "\x0118446744073709551616-0 0-0 1\n", "\x02",
	} {
		f.Add(seed)
	}
	b := &Broker{}
	f.Fuzz(func(t *testing.T, payload string) {
		m, err := b.decode(payload)
		ours := strings.HasPrefix(payload, "\x01")
		switch {
		case err != nil && (!ours || m != Message{}):
			t.Errorf("decode(%q) = %+v, %v", payload, m, err)
		case err != nil:
		case m.Foreign == ours:
			t.Errorf("decode(%q): foreign %t", payload, m.Foreign)
		case m.Foreign && (m.Payload != payload || !m.ID.IsZero()):
			t.Errorf("decode(%q) = %+v, want it whole", payload, m)
		case ours:
			head := fmt.Sprintf("\x01%s %s ", m.ID, m.Prev)
			if !strings.HasPrefix(payload, head) || !strings.HasSuffix(payload, "\n"+m.Payload) {
				t.Errorf("decode(%q) = %+v", payload, m)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	br := &Broker{}
	payload := "\x011763672400124-0 1763672400123-0 1763672400124567\n" + strings.Repeat("x", 128)
	b.ReportAllocs()
	for b.Loop() {
		if m, err := br.decode(payload); err != nil || len(m.Payload) != 128 {
			b.Fatal(m, err)
		}
	}
}
