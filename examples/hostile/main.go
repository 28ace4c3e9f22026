// Command hostile has 50 good clients exchange messages through a gateway with the
// memory of the chart's default pod while others attack it in every way that is
// known (package attack), and says what became of the messages, of the clients and
// of the memory. It exits with 1 if anything is not as it should be.
//
// So that it is the gateway that is measured, and not the load of the attackers on
// the machine, the quiet time before the attack has the same attackers, busy with
// a server that throws away what they send.
//
//	go run ./examples/hostile                              # about a minute
//	go run ./examples/hostile -attacks pings,histories     # these alone
//	go run ./examples/hostile -control                     # one defence less: must fail
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"wssgateway/examples/lab"
)

// scenario is one run.
type scenario struct {
	attacks []string // empty: all
	quiet   time.Duration
	attack  time.Duration
	control *control // nil: it must go well
}

func main() {
	if len(os.Args) == 2 && begins(os.Args[1]) {
		return
	}
	attacks := flag.String("attacks", "", "attacks, by name, separated by commas (all)")
	seconds := flag.Int("seconds", 30, "how long the attack is")
	control := flag.Bool("control", false, "take one defence after the other from the gateway: each time it must fail")
	flag.Parse()
	renice(measuredNice)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := time.Duration(*seconds) * time.Second
	scenarios := []scenario{{quiet: d / 2, attack: d}}
	if *attacks != "" {
		scenarios[0].attacks = strings.Split(*attacks, ",")
	}
	if *control {
		scenarios = negative()
	}
	failed := 0
	for _, s := range scenarios {
		if err := run(ctx, s); err != nil {
			failed++
			fmt.Fprintln(os.Stderr, "hostile:", err)
		}
	}
	if failed > 0 {
		stop()
		os.Exit(1)
	}
}

// negative returns the runs that must fail.
func negative() (scenarios []scenario) {
	for _, c := range controls() {
		scenarios = append(scenarios, scenario{attacks: []string{c.attack}, quiet: 2 * time.Second, attack: 8 * time.Second, control: &c})
	}
	return scenarios
}

// calm is how long the gateway may take to give memory back.
const calm = 45 * time.Second

// runTimeout is what no run takes.
const runTimeout = 5 * time.Minute

func run(ctx context.Context, s scenario) (err error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	if s.control != nil {
		fmt.Printf("\nnegative control: %s\n", s.control.name)
	}
	w, err := newWorld(ctx, s)
	defer func() { err = errors.Join(err, w.close(err != nil)) }()
	if err != nil {
		return err
	}
	if err := w.play(ctx); err != nil {
		return err
	}
	wrong := lab.Show(w.judge())
	return s.verdict(append(wrong, w.attacks()...))
}

// verdict says whether what is wrong is as it should be.
func (s scenario) verdict(wrong []string) error {
	switch {
	case s.control != nil && slices.Contains(wrong, s.control.attack):
		fmt.Printf("  fails on %q, as it must\n", s.control.attack)
		return nil
	case s.control != nil:
		return fmt.Errorf("%s: did not fail on %q, so nobody would notice", s.control.name, s.control.attack)
	case len(wrong) > 0:
		return fmt.Errorf("not as it should be: %s", strings.Join(wrong, ", "))
	}
	return nil
}
