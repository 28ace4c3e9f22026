package client

import (
	"cmp"
	"strconv"
	"strings"
)

// position is the id of a message: two numbers. The zero position comes before
// all messages.
type position struct{ ms, seq uint64 }

// parsePosition parses an id; what is none is the zero position.
func parsePosition(s string) (position, bool) {
	ms, seq, ok := strings.Cut(s, "-")
	if !ok {
		return position{}, false
	}
	var p position
	var err1, err2 error
	p.ms, err1 = strconv.ParseUint(ms, 10, 64)
	p.seq, err2 = strconv.ParseUint(seq, 10, 64)
	return p, err1 == nil && err2 == nil
}

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.ms, q.ms), cmp.Compare(p.seq, q.seq))
}

func (p position) String() string {
	return strconv.FormatUint(p.ms, 10) + "-" + strconv.FormatUint(p.seq, 10)
}
