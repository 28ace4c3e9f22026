package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"sync"
	"time"
)

// report is what a run has found, in order.
type report struct {
	Scenario string   `json:"scenario"`
	Started  string   `json:"started"`
	Figures  []figure `json:"figures"`
}

type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

func (r *report) add(name string, value float64, unit string) {
	r.Figures = append(r.Figures, figure{name, value, unit})
}

// latency adds percentiles of a sorted list.
func (r *report) latency(name string, sorted []time.Duration) {
	for _, p := range []struct {
		name string
		part float64
	}{{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}} {
		if len(sorted) > 0 {
			i := min(len(sorted)-1, int(float64(len(sorted))*p.part))
			r.add(name+" "+p.name, float64(sorted[i].Microseconds())/1e3, "ms")
		}
	}
}

func (r *report) print(w io.Writer) {
	for _, f := range r.Figures {
		fmt.Fprintf(w, "%-32s %14s %s\n", f.Name, f.text(), f.Unit)
	}
}

// text is the value with as many digits as mean something.
func (f figure) text() string {
	decimals := 0
	if size := math.Abs(f.Value); f.Value != math.Trunc(f.Value) && size < 1000 {
		decimals = 2
		if size < 1 {
			decimals = 3
		}
	}
	return strconv.FormatFloat(f.Value, 'f', decimals, 64)
}

// tell prints the figures, and writes them to a file if one is named; "-" is one
// line of JSON in the place of the table.
func (r *report) tell(stdout io.Writer, file string) error {
	if file == "-" {
		return json.NewEncoder(stdout).Encode(r)
	}
	r.print(stdout)
	if file == "" {
		return nil
	}
	return r.write(file)
}

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// progress tells every other second how far a run is.
type progress struct {
	mu   sync.Mutex
	name string
	quit chan struct{}
	over sync.WaitGroup
}

func startProgress(b *bench, w io.Writer) *progress {
	p := &progress{name: "starting", quit: make(chan struct{})}
	p.over.Go(func() {
		const every = 2 * time.Second
		tick := time.NewTicker(every)
		defer tick.Stop()
		before := int64(0)
		for {
			select {
			case <-p.quit:
				return
			case <-tick.C:
			}
			p.mu.Lock()
			name := p.name
			p.mu.Unlock()
			delivered := b.delivered.Load()
			fmt.Fprintf(w, "%4.0f s  %-28s %6d connections %10d deliveries (%.0f/s)\n", b.now().Seconds(), name,
				b.connected.Load(), delivered, float64(delivered-before)/every.Seconds())
			before = delivered
		}
	})
	return p
}

func (p *progress) phase(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.name = name
}

func (p *progress) stop() {
	close(p.quit)
	p.over.Wait()
}
