package broker

import (
	"cmp"
	"errors"
	"math"
	"strconv"
	"strings"
)

// ID is the id of a message on its channel, and so a position: the id of a
// Redis stream entry (milliseconds and a sequence number). The zero ID, 0-0,
// is the position before the first message.
type ID struct{ MS, Seq uint64 }

// MaxID is the greatest id there can be.
var MaxID = ID{math.MaxUint64, math.MaxUint64}

var errID = errors.New("broker: not a message id")

// ParseID parses an id as ID.String writes it. Nothing else is an id: no sign,
// no leading zeros, both parts.
func ParseID(s string) (ID, error) {
	ms, seq, ok := strings.Cut(s, "-")
	if !ok || !canonical(ms) || !canonical(seq) {
		return ID{}, errID
	}
	var id ID
	var err error
	if id.MS, err = strconv.ParseUint(ms, 10, 64); err != nil {
		return ID{}, errID
	}
	if id.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil {
		return ID{}, errID
	}
	return id, nil
}

func canonical(digits string) bool {
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return digits != "" && (digits == "0" || digits[0] != '0')
}

// String returns the id as Redis writes it: 1763672400123-0.
func (id ID) String() string { return string(id.Append(nil)) }

// Append appends the id to b as String writes it.
func (id ID) Append(b []byte) []byte {
	b = strconv.AppendUint(b, id.MS, 10)
	b = append(b, '-')
	return strconv.AppendUint(b, id.Seq, 10)
}

// Compare orders ids numerically, part by part.
func (id ID) Compare(other ID) int {
	if c := cmp.Compare(id.MS, other.MS); c != 0 {
		return c
	}
	return cmp.Compare(id.Seq, other.Seq)
}

// later returns the greater of two ids.
func later(a, b ID) ID {
	if a.Compare(b) >= 0 {
		return a
	}
	return b
}

// IsZero reports whether id is 0-0.
func (id ID) IsZero() bool { return id == ID{} }
