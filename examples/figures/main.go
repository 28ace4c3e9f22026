// Command figures measures what a gateway costs on this machine, beside a server
// that does the least that any server must (gateway-bench floor), and prints a
// table. Everything runs here, as processes of its own: redis-server, two
// gateways, the floor, and gateway-bench, which puts the load on them. It exits
// with 1 if a figure is not what it must be, or if anything was lost.
//
//	go run ./examples/figures            # some minutes
//	go run ./examples/figures -only storm
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"wssgateway/examples/lab"
)

func main() {
	only := flag.String("only", "", "rows to measure: idle, fanout, direct or storm, separated by commas (all)")
	growth := flag.Bool("growth", false, "show what grows with connections, channels and nodes instead (8 minutes)")
	verbose := flag.Bool("v", false, "show what gateway-bench prints")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b := &bench{verbose: *verbose}
	err := b.either(ctx, *growth, func(scenario string) bool {
		return *only == "" || slices.Contains(strings.Split(*only, ","), scenario)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

func (b *bench) either(ctx context.Context, growth bool, wanted func(string) bool) error {
	if growth {
		return b.growth(ctx)
	}
	return b.run(ctx, wanted)
}

// bench is the processes, and what was measured on them.
type bench struct {
	verbose bool
	lab     *lab.Lab
	program string // gateway-bench
	floor   *exec.Cmd
	results map[string][]figures // by server and scenario
}

// figures are what one run of gateway-bench found, by name.
type figures map[string]float64

// Where the floor listens is written down by it; the ports are any that are free.
const floorURL, floorAPI = "127.0.0.1:18099", "127.0.0.1:19099"

func (b *bench) run(ctx context.Context, wanted func(string) bool) (err error) {
	b.results = make(map[string][]figures)
	for _, g := range groups() {
		if wanted(g.scenario) {
			if err := b.measure(ctx, g); err != nil {
				return fmt.Errorf("%s: %w", g.scenario, err)
			}
		}
	}
	return b.print(wanted)
}

// measure starts everything anew, so that nothing of one group is in the memory
// of the next, and runs it.
func (b *bench) measure(ctx context.Context, g group) (err error) {
	// As it ships, but for the snapshots: what is on disk is not measured here.
	b.lab, err = lab.New(ctx, "", "--save", "", "--appendonly", "no")
	defer func() { err = errors.Join(err, b.lab.Close()) }()
	if err != nil {
		return err
	}
	if b.program, err = b.lab.Build(ctx, "wssgateway/cmd/gateway-bench"); err != nil {
		return err
	}
	for _, name := range []string{"one", "two"}[:g.nodes] {
		n, err := b.lab.AddNode(name)
		if err != nil {
			return err
		}
		if err := n.AwaitReady(ctx); err != nil {
			return err
		}
	}
	b.floor = exec.CommandContext(ctx, b.program, "floor", "--listen", floorURL, "--api-listen", floorAPI)
	if err := b.floor.Start(); err != nil {
		return err
	}
	defer func() {
		_ = b.floor.Process.Kill()
		_ = b.floor.Wait()
	}()
	for _, r := range g.runs {
		for range r.times() {
			for _, server := range []string{"floor", "gateway"} {
				fmt.Fprintf(os.Stderr, "%s: %s %s\n", server, g.scenario, strings.Join(r.flags, " "))
				f, err := b.load(ctx, server, g.scenario, r)
				if err != nil {
					return err
				}
				key := server + " " + r.name
				b.results[key] = append(b.results[key], f)
			}
		}
	}
	return nil
}

// load runs gateway-bench once.
func (b *bench) load(ctx context.Context, server, scenario string, r run) (figures, error) {
	out := filepath.Join(os.TempDir(), fmt.Sprintf("figures-%d.json", os.Getpid()))
	defer os.Remove(out)
	args := append([]string{scenario, "--json", out, "--jwt-secret", lab.Secret, "--api-key", lab.APIKey}, r.flags...)
	if server == "floor" {
		args = append(args, "--url", "ws://"+floorURL+"/ws", "--api", "http://"+floorAPI,
			"--pid", fmt.Sprintf("server=%d", b.floor.Process.Pid))
		args = append(args, r.floorFlags...)
	} else {
		last := b.lab.Nodes[len(b.lab.Nodes)-1] // with two nodes, messages come in at the other one
		pids := fmt.Sprintf("redis=%d", b.lab.Redis.PID())
		for _, n := range b.lab.Nodes {
			pids += fmt.Sprintf(",server=%d", n.PID())
		}
		args = append([]string{args[0], "--url", "ws://" + last.Public + "/ws", "--api", "http://" + b.lab.Nodes[0].Admin, "--pid", pids}, args[1:]...)
	}
	cmd := exec.CommandContext(ctx, b.program, args...)
	if b.verbose {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("gateway-bench %s on the %s: %w (-v shows more)", scenario, server, err)
	}
	report, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	var parsed struct {
		Figures []struct {
			Name  string
			Value float64
		}
	}
	if err := json.Unmarshal(report, &parsed); err != nil {
		return nil, err
	}
	f := make(figures)
	for _, one := range parsed.Figures {
		f[one.Name] = one.Value
	}
	return f, nil
}

// figure returns the best of what the runs of a row found: what else happens on
// the machine only makes it worse.
func (b *bench) figure(server string, r row) float64 {
	var values []float64
	for _, f := range b.results[server+" "+r.run] {
		values = append(values, f[r.figure])
	}
	switch {
	case len(values) == 0:
		return 0
	case r.more:
		return slices.Max(values)
	}
	return slices.Min(values)
}

func (b *bench) print(wanted func(string) bool) error {
	fmt.Printf("\n%d processors, %s\n\n", runtime.NumCPU(), runtime.Version())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tgateway\tfloor\tratio\tmust\taim\t")
	var missed []string
	for _, r := range rows() {
		if !wanted(r.scenario) {
			continue
		}
		gateway, floor := b.figure("gateway", r), b.figure("floor", r)
		ratio := "-"
		value := gateway
		if floor > 0 {
			ratio = fmt.Sprintf("%.2f", gateway/floor)
		}
		if r.relative {
			value = gateway / floor
		}
		mark := "ok"
		if value > r.must != r.more {
			mark = "NOT"
			missed = append(missed, r.name)
		}
		below := "-"
		if floor > 0 {
			below = fmt.Sprintf("%.4g", floor)
		}
		fmt.Fprintf(w, "%s\t%.4g %s\t%s\t%s\t%s\t%s\t%s\n", r.name, gateway, r.unit, below, ratio, r.limit(r.must), r.limit(r.aim), mark)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(missed) > 0 {
		return fmt.Errorf("not what it must be: %s", strings.Join(missed, "; "))
	}
	fmt.Println("\nNothing was lost, repeated or out of order in any run.")
	return nil
}
