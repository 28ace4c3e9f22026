// Command e2e rolls three gateways under load, as a Deployment of Kubernetes
// does, and says what became of the messages: with clients that follow the
// protocol, clients that do not, frozen ones, nodes that are killed, and a Redis
// that is restarted. Two more runs, without history and without pacing, must fail
// on just that. It exits with 1 if anything is not as it should be.
//
//	go run ./examples/e2e            # all of it, some minutes
//	go run ./examples/e2e -only roll
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"wssgateway/examples/lab"
)

// scenario is one run.
type scenario struct {
	name  string
	about string

	clients, rounds, rate    int
	drainDelay, drainTimeout time.Duration
	asTimeout                time.Duration // the drain timeout that the pace is judged by; 0: the real one
	frozen                   int           // clients that never read
	stay                     bool          // clients do not move when asked to
	kill                     bool          // SIGKILL in the place of SIGTERM
	redis                    bool          // Redis is restarted in the middle
	noHistory                bool
	rebalance                bool

	mustFail string // the figure by which a negative control fails
}

// window is what the drain has to move the connections in.
func (s scenario) window() time.Duration {
	if s.asTimeout > 0 {
		return s.asTimeout - s.drainDelay
	}
	return s.drainTimeout - s.drainDelay
}

func scenarios(clients int) []scenario {
	base := scenario{clients: clients, rounds: 1, rate: 80, drainDelay: time.Second, drainTimeout: 11 * time.Second}
	with := func(name, about string, change func(*scenario)) scenario {
		s := base
		s.name, s.about = name, about
		change(&s)
		return s
	}
	return []scenario{
		with("roll", "every node in turn gets SIGTERM and starts again, twice around", func(s *scenario) { s.rounds, s.rebalance = 2, true }),
		with("frozen", "the same, once around, with another 5 % of the clients frozen", func(s *scenario) { s.frozen = clients / 20 }),
		with("stay", "clients that do not move when they are asked to", func(s *scenario) { s.stay = true }),
		with("kill", "SIGKILL instead of SIGTERM", func(s *scenario) { s.kill = true }),
		with("redis", "Redis is restarted in the middle", func(s *scenario) { s.redis = true }),
		with("no history", "negative control: SIGKILL without history must lose", func(s *scenario) {
			s.kill, s.noHistory, s.mustFail = true, true, "lost"
		}),
		with("no pacing", "negative control: a drain in a second must be a storm", func(s *scenario) {
			s.drainTimeout, s.asTimeout, s.mustFail = 2*time.Second, s.drainTimeout, "peak reconnects/s"
		}),
	}
}

func main() {
	only := flag.String("only", "", "scenarios to run, separated by commas (all)")
	clients := flag.Int("clients", 600, "clients, each with its inbox and two rooms")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	failed := 0
	for _, s := range scenarios(*clients) {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), s.name) {
			continue
		}
		if err := run(ctx, s); err != nil {
			failed++
			fmt.Fprintf(os.Stderr, "e2e: %s: %v\n", s.name, err)
		}
	}
	if failed > 0 {
		os.Exit(1)
	}
}

// scenarioTimeout is what no scenario takes.
const scenarioTimeout = 5 * time.Minute

func run(ctx context.Context, s scenario) (err error) {
	ctx, cancel := context.WithTimeout(ctx, scenarioTimeout)
	defer cancel()
	fmt.Printf("\n%s: %s (%d clients, 3 nodes, %d messages/s)\n", s.name, s.about, s.clients, s.rate)
	w, err := newWorld(ctx, s)
	defer func() {
		if closing := w.close(err != nil); err == nil {
			err = closing
		}
	}()
	if err != nil {
		return err
	}
	p, err := w.play(ctx)
	if err != nil {
		return err
	}
	return s.verdict(w.judge(p))
}

// verdict shows the figures and says whether they are as they should be.
func (s scenario) verdict(figures []lab.Figure) error {
	wrong := lab.Show(figures)
	switch {
	case s.mustFail != "" && slices.Contains(wrong, s.mustFail):
		fmt.Printf("  fails on %q, as it must\n", s.mustFail)
		return nil
	case s.mustFail != "":
		return fmt.Errorf("did not fail on %q: the test would not notice", s.mustFail)
	case len(wrong) > 0:
		return fmt.Errorf("not as it should be: %s", strings.Join(wrong, ", "))
	}
	return nil
}
