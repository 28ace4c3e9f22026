package session

import (
	"testing"
	"time"
)

func TestRecordIsReadAsWritten(t *testing.T) {
	want := record{
		generation: 7, lease: "a|1-2.1", claim: "x", connectedAt: time.UnixMilli(1763672400123),
		client: "smart tv", details: details{Device: `my "phone" ☎`, IP: "2001:db8::1"},
	}
	for _, s := range []string{want.String(), want.String() + " what a later version adds"} {
		got, err := parseRecord(s)
		if err != nil {
			t.Fatal(err)
		}
		if !got.connectedAt.Equal(want.connectedAt) {
			t.Errorf("connected at %v", got.connectedAt)
		}
		got.connectedAt = want.connectedAt
		if got != want {
			t.Errorf("%q read as %v", s, got)
		}
	}
}

func TestChannelsAreReadAsWritten(t *testing.T) {
	for _, c := range []struct{ channels, given []string }{
		{nil, nil}, {[]string{"a", "b"}, nil}, {nil, []string{"a"}}, {[]string{"a", "b c"}, []string{"b c"}},
	} {
		all, given := parseChannels(formatChannels(list(c.channels), list(c.given)))
		if len(unlist(all)) != len(c.channels) || len(unlist(given)) != len(c.given) {
			t.Errorf("%v %v read as %q %q", c.channels, c.given, all, given)
		}
	}
}

func TestOnlyIDsAreValid(t *testing.T) {
	if id := newID(); !validID(id) {
		t.Errorf("%q", id)
	}
	for _, s := range []string{"", "s_", "s_AAAAAAAAAAAAAAAAAAAAA", "s_AAAAAAAAAAAAAAAAAAAAA\n", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAA", "s_AAAAAAAAAAA AAAAAAAAAA"} {
		if validID(s) {
			t.Errorf("%q is taken for an id", s)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(record{generation: 1, lease: "a|1-2.1", claim: "x", client: "web"}.String())
	f.Add(`1 2 a b 3 "web" {}`)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRecord(s)
		if err != nil {
			return
		}
		if again, err := parseRecord(r.String()); err != nil || again.generation != r.generation || again.client != r.client {
			t.Errorf("%q: %v %v", s, again, err)
		}
	})
}
