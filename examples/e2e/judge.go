package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// figure is one line of a report.
type figure struct {
	name  string
	value string
	limit string // "" if it is only told
	ok    bool
}

// judge compares what was acknowledged with what came, and looks at how the
// members were moved.
func (w *world) judge(p *publisher) []figure {
	var lost, repeated, disordered, told, received int
	for _, m := range w.members {
		told += m.gapsTold
		for _, channel := range m.channels {
			v := verdictOf(m.got[channel], p.acked[channel])
			lost, repeated, disordered = lost+v.lost, repeated+v.repeated, disordered+v.disordered
			received += len(m.got[channel])
		}
	}
	published := 0
	for _, list := range p.acked {
		published += len(list)
	}
	figures := []figure{
		{name: "published", value: fmt.Sprintf("%d acknowledged (%d calls repeated), %d received by %d clients", published, p.again.Load(), received, len(w.members))},
		zero("lost", lost), zero("repeated", repeated), zero("out of order", disordered), zero("gaps told", told),
	}
	figures = append(figures, w.reconnects()...)
	return append(figures, w.latencies()...)
}

func zero(name string, n int) figure { return figure{name, strconv.Itoa(n), "0", n == 0} }

// verdict is what became of the messages of one channel for one member.
type verdict struct{ lost, repeated, disordered int }

func verdictOf(received []got, acked []int) (v verdict) {
	seen := make(map[int]bool, len(received))
	last := ""
	for _, g := range received {
		if seen[g.n] {
			v.repeated++
		}
		seen[g.n] = true
		if compareIDs(g.id, last) <= 0 && g.id != "" {
			v.disordered++
		}
		last = g.id
	}
	for _, n := range acked {
		if !seen[n] {
			v.lost++
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

// reconnects tells how the members were moved.
func (w *world) reconnects() []figure {
	s := w.scenario
	sat, peak, limit := 0, 0, 0.0
	slowest, codes := time.Duration(0), 0
	for _, r := range w.rolls {
		sat += r.connections
		if n := w.peak(r); n > peak {
			peak = n
		}
		limit = max(limit, s.allowance()*float64(r.connections)/s.window().Seconds())
		slowest = max(slowest, r.took)
		codes += min(1, r.code)
	}
	connects := 0
	var gaps []time.Duration
	for _, m := range w.members {
		for _, j := range m.joined[1:] {
			if j.at.Before(w.rolled) {
				connects++
			}
			gaps = append(gaps, j.gap)
		}
	}
	slices.Sort(gaps)
	per := float64(connects) / float64(max(1, sat))
	moved := figure{"reconnects", fmt.Sprintf("%.3f per client and restart of its node (%d)", per, connects), "1.0", per > 0.99 && per < 1.05}
	paced := figure{"peak reconnects/s", strconv.Itoa(peak), fmt.Sprintf("%.0f", limit), float64(peak) <= limit}
	if s.redis { // while it is away nobody can move, and then all those do who should have
		moved.limit, paced.limit = "", ""
	}
	figures := []figure{moved}
	if !s.kill {
		figures = append(figures, paced,
			figure{"slowest drain", slowest.Round(10 * time.Millisecond).String(), s.drainTimeout.String(), slowest <= s.drainTimeout},
			zero("exit codes not 0", codes))
	}
	median := percentile(gaps, 50)
	mg := figure{name: "without a connection", value: fmt.Sprintf("median %v, p99 %v, longest %v",
		median.Round(time.Millisecond), percentile(gaps, 99).Round(time.Millisecond), percentile(gaps, 100).Round(time.Millisecond))}
	if !s.kill && !s.stay && !s.redis {
		mg.limit, mg.ok = "median 0", median == 0
	}
	if figures = append(figures, mg); s.rebalance {
		figures = append(figures, figure{name: "connections by node",
			value: fmt.Sprintf("%s after the roll, %s after rebalancing", w.balances[0], w.balances[1])})
	}
	return figures
}

// allowance is by how much the busiest second of a drain may exceed the mean.
// Clients that are closed come back after a random time of their own, which adds
// to that.
func (s scenario) allowance() float64 {
	if s.stay {
		return 2
	}
	return 1.5
}

// peak returns the most connections that members made in one second of a roll.
func (w *world) peak(r roll) (most int) {
	perSecond := make(map[int]int)
	for _, m := range w.members {
		for _, j := range m.joined[1:] {
			if j.at.After(r.start) && j.at.Before(r.end) {
				perSecond[int(j.at.Sub(r.start)/time.Second)]++
			}
		}
	}
	for _, n := range perSecond {
		most = max(most, n)
	}
	return most
}

// latencies tells how long messages took from being published to the member.
func (w *world) latencies() []figure {
	var during, outside []time.Duration
	for _, m := range w.members {
		for _, list := range m.got {
			for _, g := range list {
				if w.rolling(g.at.Add(-g.latency)) || w.rolling(g.at) {
					during = append(during, g.latency)
				} else {
					outside = append(outside, g.latency)
				}
			}
		}
	}
	slices.Sort(during)
	slices.Sort(outside)
	return []figure{{name: "delivery p50, p99", value: fmt.Sprintf("%v, %v during the roll; %v, %v outside",
		percentile(during, 50).Round(10*time.Microsecond), percentile(during, 99).Round(10*time.Microsecond),
		percentile(outside, 50).Round(10*time.Microsecond), percentile(outside, 99).Round(10*time.Microsecond))}}
}

func (w *world) rolling(at time.Time) bool {
	return slices.ContainsFunc(w.rolls, func(r roll) bool { return at.After(r.start) && at.Before(r.end) })
}

// percentile returns a percentile of a sorted list.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}
