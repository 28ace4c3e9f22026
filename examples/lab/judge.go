package lab

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Figure is one line of a report.
type Figure struct {
	Name  string
	Value string
	Limit string // "" if it is only told
	OK    bool
}

// Zero returns the figure of something that must not be.
func Zero(name string, n int) Figure { return Figure{name, strconv.Itoa(n), "0", n == 0} }

// Show prints figures and returns the names of those that are not as they should be.
func Show(figures []Figure) (wrong []string) {
	for _, f := range figures {
		mark := ""
		if f.Limit != "" {
			mark = "ok, at most " + f.Limit
			if !f.OK {
				mark = "NOT " + f.Limit
				wrong = append(wrong, f.Name)
			}
		}
		fmt.Printf("  %-22s %-70s %s\n", f.Name, f.Value, mark)
	}
	return wrong
}

// Note is the data of a message whose way is followed.
type Note struct {
	N  int   `json:"n"`
	At int64 `json:"at"` // microseconds since 1970, when it was published
}

// Got is a message that came.
type Got struct {
	N       int
	ID      string
	Latency time.Duration
	At      time.Time
}

// Verdict is what became of the messages of one channel for one client.
type Verdict struct{ Lost, Repeated, Disordered int }

// VerdictOf compares what a client received with what was acknowledged.
func VerdictOf(received []Got, acked []int) (v Verdict) {
	seen := make(map[int]bool, len(received))
	last := ""
	for _, g := range received {
		if seen[g.N] {
			v.Repeated++
		}
		seen[g.N] = true
		if compareIDs(g.ID, last) <= 0 && g.ID != "" {
			v.Disordered++
		}
		last = g.ID
	}
	for _, n := range acked {
		if !seen[n] {
			v.Lost++
		}
	}
	return v
}

// compareIDs compares ids of messages; what is none comes first.
func compareIDs(a, b string) int {
	ams, aseq := parts(a)
	bms, bseq := parts(b)
	return cmp.Or(cmp.Compare(ams, bms), cmp.Compare(aseq, bseq))
}

func parts(id string) (ms, seq uint64) {
	a, b, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(a, 10, 64)
	seq, _ = strconv.ParseUint(b, 10, 64)
	return ms, seq
}

// Percentile returns a percentile of a list, which it sorts.
func Percentile(list []time.Duration, p int) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, len(list)*p/100)]
}
