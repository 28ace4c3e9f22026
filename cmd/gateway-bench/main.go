// Command gateway-bench puts load on gateways and tells what it cost and what
// became of the messages. It runs against any gateway, from thousands of cheap
// connections, and has a floor to compare with: a server that does the least
// that any server must.
//
//	gateway-bench fanout --url ws://127.0.0.1:8080/ws --api http://127.0.0.1:9090 --api-key … --jwt-secret …
//
// docs/performance.md says how to read the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // something was lost, repeated or out of order, or could not be done
	exitUsage  = 2
)

// scenario is one kind of load.
type scenario struct {
	name    string
	summary string
	// defaults changes the options before the flags are read.
	defaults func(*options)
	run      func(context.Context, *bench) error
}

var scenarios = []scenario{
	{"idle", "connections that do nothing: memory, and CPU for pings", func(o *options) { o.connections = 10000 }, idle},
	{"fanout", "messages to one channel with many subscribers", func(o *options) { o.connections, o.rooms = 1000, 1 }, fanout},
	{"direct", "messages to the inbox of one user each", func(o *options) { o.connections, o.inFlight = 1000, 64 }, direct},
	{"storm", "all connections are cut and come back at once", func(o *options) { o.connections = 8000 }, storm},
	{"roll", "steady load through clients that follow the protocol, while nodes come and go", func(o *options) { o.connections, o.rate, o.duration, o.keyed = 1000, 100, time.Minute, true }, roll},
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	name := "help"
	if len(args) > 0 {
		name, args = strings.TrimLeft(args[0], "-"), args[1:]
	}
	if name == "help" || name == "h" {
		usage(stdout)
		return exitOK
	}
	err := fmt.Errorf("%q is not a command; there are %s", name, strings.Join(commandNames(), ", "))
	code := exitUsage
	if name == "floor" {
		code, err = runFloor(ctx, args, stdout)
	}
	for _, s := range scenarios {
		if s.name == name {
			code, err = s.start(ctx, args, stdout, stderr)
		}
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(stderr, "gateway-bench:", err)
	}
	return code
}

// start reads the flags, runs the scenario and reports.
func (s scenario) start(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	o := defaultOptions()
	s.defaults(&o)
	if err := o.parse(s, args, stdout); err != nil {
		return exitUsage, err
	}
	b, err := newBench(s.name, o, stderr)
	if err != nil {
		return exitUsage, err
	}
	defer b.close()
	err = s.run(ctx, b)
	if err == nil {
		err = b.verify()
	}
	err = errors.Join(err, b.report.tell(stdout, o.json))
	if err != nil {
		return exitFailed, err
	}
	return exitOK, nil
}

func commandNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return append(names, "floor", "help")
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: gateway-bench COMMAND [flags]\n\nPuts load on gateways, and tells what it cost and what became of the messages.\n\n")
	for _, s := range scenarios {
		fmt.Fprintf(w, "  %-8s %s\n", s.name, s.summary)
	}
	fmt.Fprintf(w, "  %-8s %s\n", "floor", "a server that does the least any server must, to compare with")
	fmt.Fprint(w, "\ngateway-bench COMMAND --help lists the flags of a command.\n")
}
