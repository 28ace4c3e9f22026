package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"wssgateway/examples/lab"
)

// judge compares what was acknowledged with what came, and looks at how the
// members were moved.
func (w *world) judge(p *publisher) []lab.Figure {
	var lost, repeated, disordered, told, received int
	for _, m := range w.members {
		told += m.gapsTold
		for _, channel := range m.channels {
			v := lab.VerdictOf(m.got[channel], p.acked[channel])
			lost, repeated, disordered = lost+v.Lost, repeated+v.Repeated, disordered+v.Disordered
			received += len(m.got[channel])
		}
	}
	published := 0
	for _, list := range p.acked {
		published += len(list)
	}
	figures := []lab.Figure{
		{Name: "published", Value: fmt.Sprintf("%d acknowledged (%d calls repeated), %d received by %d clients", published, p.again.Load(), received, len(w.members))},
		lab.Zero("lost", lost), lab.Zero("repeated", repeated), lab.Zero("out of order", disordered), lab.Zero("gaps told", told),
	}
	figures = append(figures, w.reconnects()...)
	return append(figures, w.latencies()...)
}

// reconnects tells how the members were moved.
func (w *world) reconnects() []lab.Figure {
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
	per := float64(connects) / float64(max(1, sat))
	moved := lab.Figure{Name: "reconnects", Value: fmt.Sprintf("%.3f per client and restart of its node (%d)", per, connects), Limit: "1.0", OK: per > 0.99 && per < 1.05}
	paced := lab.Figure{Name: "peak reconnects/s", Value: strconv.Itoa(peak), Limit: fmt.Sprintf("%.0f", limit), OK: float64(peak) <= limit}
	if s.redis { // while it is away nobody can move, and then all those do who should have
		moved.Limit, paced.Limit = "", ""
	}
	figures := []lab.Figure{moved}
	if !s.kill {
		figures = append(figures, paced,
			lab.Figure{Name: "slowest drain", Value: slowest.Round(10 * time.Millisecond).String(), Limit: s.drainTimeout.String(), OK: slowest <= s.drainTimeout},
			lab.Zero("exit codes not 0", codes))
	}
	median := lab.Percentile(gaps, 50)
	mg := lab.Figure{Name: "without a connection", Value: fmt.Sprintf("median %v, p99 %v, longest %v",
		median.Round(time.Millisecond), lab.Percentile(gaps, 99).Round(time.Millisecond), lab.Percentile(gaps, 100).Round(time.Millisecond))}
	if !s.kill && !s.stay && !s.redis {
		mg.Limit, mg.OK = "median 0", median == 0
	}
	if figures = append(figures, mg); s.rebalance {
		figures = append(figures, lab.Figure{Name: "connections by node",
			Value: fmt.Sprintf("%s after the roll, %s after rebalancing", w.balances[0], w.balances[1])})
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
func (w *world) latencies() []lab.Figure {
	var during, outside []time.Duration
	for _, m := range w.members {
		for _, list := range m.got {
			for _, g := range list {
				if w.rolling(g.At.Add(-g.Latency)) || w.rolling(g.At) {
					during = append(during, g.Latency)
				} else {
					outside = append(outside, g.Latency)
				}
			}
		}
	}
	return []lab.Figure{{Name: "delivery p50, p99", Value: fmt.Sprintf("%v, %v during the roll; %v, %v outside",
		lab.Percentile(during, 50).Round(10*time.Microsecond), lab.Percentile(during, 99).Round(10*time.Microsecond),
		lab.Percentile(outside, 50).Round(10*time.Microsecond), lab.Percentile(outside, 99).Round(10*time.Microsecond))}}
}

func (w *world) rolling(at time.Time) bool {
	return slices.ContainsFunc(w.rolls, func(r roll) bool { return at.After(r.start) && at.Before(r.end) })
}
