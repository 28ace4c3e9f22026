package broker

import (
	"cmp"
	"testing"
)

func TestParseID(t *testing.T) {
	for s, want := range map[string]ID{
		"0-0":             {},
		"1763672400123-7": {1763672400123, 7},
		"18446744073709551615-18446744073709551615": MaxID,
	} {
		if got, err := ParseID(s); err != nil || got != want {
			t.Errorf("ParseID(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "-", "0", "7", "7-", "-7", "07-0", "7-00", "+7-0", "7-+0", "7--0", "7-0-0", " 7-0", "7-0 ",
		"7_0-0", "0x7-0", "７-0", "18446744073709551616-0", "0-18446744073709551616", "(7-0", "*",
	} {
		if got, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %v, want an error", s, got)
		}
	}
}

func TestIDsCompareNumerically(t *testing.T) {
	ascending := []ID{{}, {0, 1}, {9, 10}, {10, 9}, {10, 10}, {100, 0}, MaxID}
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := a.Compare(b), cmp.Compare(i, j); got != want {
				t.Errorf("%s.Compare(%s) = %d, want %d", a, b, got, want)
			}
		}
		if got, want := a.IsZero(), i == 0; got != want {
			t.Errorf("%s.IsZero() = %t", a, got)
		}
	}
}

// FuzzParseID checks that what is an id has one way to write it.
func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"", "0-0", "1763672400123-0", "01-0", "1", "18446744073709551615-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err == nil && id.String() != s {
			t.Errorf("ParseID(%q) writes itself %q", s, id)
		}
		if err != nil && id != (ID{}) {
			t.Errorf("ParseID(%q) = %v with an error", s, id)
		}
	})
}
