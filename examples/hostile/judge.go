package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"wssgateway/examples/hostile/attack"
	"wssgateway/examples/lab"
)

// slower is by how much the latency may grow under attack. What is more than
// quietMost without an attack is the machine's, and by that nothing can be judged.
const slower, quietMost = 3, 20 * time.Millisecond

// judge says what became of everybody.
func (w *world) judge() []lab.Figure {
	figures := slices.Concat(w.messages(), w.witness.figures())
	figures = append(figures, w.caller.figure(), w.callStreams(), w.flaps())
	latency := w.latency()
	if figures = append(figures, latency); !latency.OK {
		figures = append(figures, w.timeline())
	}
	return slices.Concat(figures, w.memory(), w.load())
}

// messages compares what was acknowledged with what came.
func (w *world) messages() []lab.Figure {
	var sum lab.Verdict
	var received, closed, gaps, foreign int
	var why []string
	for _, m := range w.members {
		gaps += m.gapsTold
		closings := m.closings()
		closed += len(closings)
		why = append(why, closings...)
		for _, channel := range m.channels {
			v := lab.VerdictOf(m.got[channel], w.ledger.acked[channel])
			sum.Lost, sum.Repeated, sum.Disordered = sum.Lost+v.Lost, sum.Repeated+v.Repeated, sum.Disordered+v.Disordered
			received += len(m.got[channel])
			foreign += strangers(m.got[channel])
		}
	}
	published := 0
	for _, list := range w.ledger.acked {
		published += len(list)
	}
	failed := lab.Zero("publishes failed", int(w.ledger.failed.Load()))
	if w.ledger.why != nil {
		failed.Value += ", " + w.ledger.why.Error()
	}
	ends := lab.Zero("good clients closed", closed)
	ends.Value += " times " + strings.Join(most(why), "; ")
	return []lab.Figure{
		{Name: "published", Value: fmt.Sprintf("%d acknowledged, %d received by %d clients", published, received, len(w.members)),
			Limit: "any number but 0", OK: published > 0 && received > published},
		ends, failed, lab.Zero("lost", sum.Lost), lab.Zero("repeated", sum.Repeated), lab.Zero("out of order", sum.Disordered),
		lab.Zero("gaps told", gaps), lab.Zero("not what was sent", foreign),
	}
}

// strangers counts messages that nobody has published.
func strangers(list []lab.Got) (n int) {
	for _, g := range list {
		if g.N < 0 {
			n++
		}
	}
	return n
}

// most returns the reasons of which there are most, with how many.
func most(reasons []string) []string {
	count := make(map[string]int)
	for _, r := range reasons {
		count[r]++
	}
	var list []string
	for r, n := range count {
		list = append(list, fmt.Sprintf("%3d: %s", n, r))
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list[:min(3, len(list))]
}

// callStreams tells what streams of calls there are that no backend has made.
func (w *world) callStreams() lab.Figure { return lab.Zero("streams of calls left", len(w.streams)) }

// flaps tells how often the good clients heard that somebody came or went: one who
// flaps is told of once in a second at the most, not each time.
func (w *world) flaps() lab.Figure {
	told := 0
	for _, m := range w.members {
		told = max(told, m.flaps)
	}
	const users = 2
	limit := 2 * users * int(w.scenario.attack/time.Second)
	return lab.Figure{Name: "joins and leaves told", Value: fmt.Sprintf("%d of %d users who flap, to each client", told, users),
		Limit: fmt.Sprint(limit), OK: told <= limit}
}

// latency compares the latency under attack with that of the quiet before. While
// others have the processors, now and then all stands still, in either: then it is
// the middle one of the seconds by which both are judged, and not the worst.
func (w *world) latency() lab.Figure {
	all := func(time.Time) bool { return true }
	quiet, attacked := w.latencies(all)
	f := compare(lab.Percentile(quiet, 99), lab.Percentile(attacked, 99))
	const unit = 10 * time.Microsecond
	f.Value += fmt.Sprintf(" (p50 %v and %v, longest %v and %v)", lab.Percentile(attacked, 50).Round(unit), lab.Percentile(quiet, 50).Round(unit),
		lab.Percentile(attacked, 100).Round(unit), lab.Percentile(quiet, 100).Round(unit))
	busy := mean(w.noise.between(w.phases[0].begin, w.phases[1].end))
	if f.OK || busy <= others {
		return f
	}
	c := compare(lab.Percentile(w.bySecond(0), 50), lab.Percentile(w.bySecond(1), 50))
	if !c.OK && lab.Percentile(w.bySecond(0), 50) > quietMost {
		c.Value += ": TOO BUSY A MACHINE TO JUDGE BY,"
	}
	c.Value += fmt.Sprintf(" in the middle one of the seconds, for others had %.0f %% of the processors; in all, %s", busy*100, f.Value)
	return c
}

// compare compares a latency under attack with one of the quiet.
func compare(quiet, attacked time.Duration) lab.Figure {
	const unit = 10 * time.Microsecond
	limit := slower * min(quietMost, quiet)
	return lab.Figure{Name: "p99", Value: fmt.Sprintf("%v under attack, %v quiet", attacked.Round(unit), quiet.Round(unit)),
		Limit: limit.Round(unit).String(), OK: attacked <= limit && attacked > 0}
}

// bySecond returns the p99 of each second of a phase.
func (w *world) bySecond(phase int) (p99 []time.Duration) {
	for _, s := range w.noise.between(w.phases[phase].begin, w.phases[phase].end) {
		quiet, attacked := w.latencies(func(t time.Time) bool { return !t.Before(s.begin) && t.Before(s.end) })
		p99 = append(p99, lab.Percentile(append(quiet, attacked...), 99))
	}
	return p99
}

// latencies returns how long messages took in the quiet phase and in that of the
// attack, of those that were published at a time that counts.
func (w *world) latencies(counts func(time.Time) bool) (quiet, attacked []time.Duration) {
	for _, m := range w.members {
		for _, list := range m.got {
			for _, g := range list {
				switch published := g.At.Add(-g.Latency); {
				case !counts(published):
				case w.phases[0].has(published):
					quiet = append(quiet, g.Latency)
				case w.phases[1].has(published):
					attacked = append(attacked, g.Latency)
				}
			}
		}
	}
	return quiet, attacked
}

// timeline shows the p99 of each second of the attack.
func (w *world) timeline() lab.Figure {
	var line []string
	for _, p99 := range w.bySecond(1) {
		line = append(line, p99.Round(time.Millisecond).String())
	}
	return lab.Figure{Name: "p99 by the second", Value: strings.Join(line, " ")}
}

func (p phase) has(t time.Time) bool { return t.After(p.begin) && t.Before(p.end) }

func (w *world) memory() []lab.Figure {
	_, most, err := resident(w.node)
	if err != nil {
		return []lab.Figure{{Name: "memory", Value: err.Error(), Limit: "known"}}
	}
	return []lab.Figure{
		{Name: "memory, most", Value: fmt.Sprintf("%d MiB (RSS)", most/mib),
			Limit: fmt.Sprintf("%d MiB", podLimit/mib), OK: most <= podLimit},
		{Name: "memory, given back", Value: fmt.Sprintf("%d MiB before, %d MiB %v after", w.before/mib, w.after/mib, w.back.Round(time.Second)),
			Limit: fmt.Sprintf("%d MiB", (w.before+giveBack)/mib), OK: w.after <= w.before+giveBack},
	}
}

// load tells what the phases cost.
func (w *world) load() (figures []lab.Figure) {
	for _, p := range w.phases {
		took := p.end.Sub(p.begin).Seconds()
		figures = append(figures, lab.Figure{Name: p.name, Value: fmt.Sprintf(
			"%.0f s; processors: gateway %.2f, attackers %.2f; %.1f MB/s out of Redis; Go heap %s MiB, all TCP sockets %d MiB; ended: %v",
			took, p.gateway.Seconds()/took, p.cpu.Seconds()/took, float64(p.redisOut)/1e6/took, p.heap, p.sockets/mib, p.ended)})
	}
	return figures
}

// attacks shows of each attack what it met, and returns the names of those that
// were none, or met what they should not.
func (w *world) attacks() (wrong []string) {
	p := w.phases[len(w.phases)-1]
	fmt.Println("  the attacks:")
	for i, a := range attack.Chosen(w.scenario.attacks) {
		bad := a.Judge(p.results[i], p.end.Sub(p.begin))
		mark := "ok "
		if len(bad) > 0 {
			mark = "NOT"
			wrong = append(wrong, a.Name)
		}
		fmt.Printf("  %s %-28s %s\n", mark, a.Name, p.results[i])
		for _, b := range bad {
			fmt.Printf("      %-28s   %s\n", "", b)
		}
	}
	return wrong
}
