package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// options are the flags of the scenarios.
type options struct {
	urls, apis  []string
	apiKey      string
	secret      string
	connections int
	rooms       int
	roomsEach   int
	size        int
	inFlight    int
	rate        int
	warmUp      time.Duration
	duration    time.Duration
	parallel    int
	pids        []watched
	json        string
	name        string // begins the names of users and rooms
	keyed       bool   // publish with idempotency keys
}

// watched is a process whose CPU time and memory are reported.
type watched struct {
	name string
	pid  int
}

func defaultOptions() options {
	return options{
		urls:        []string{"ws://127.0.0.1:8080/ws"},
		apis:        []string{"http://127.0.0.1:9090"},
		apiKey:      os.Getenv("GATEWAY_API_KEY"),
		secret:      os.Getenv("GATEWAY_JWT_SECRET"),
		connections: 1000,
		rooms:       100,
		roomsEach:   1,
		size:        128,
		inFlight:    1,
		warmUp:      2 * time.Second,
		duration:    10 * time.Second,
		parallel:    128,
		name:        "bench",
	}
}

func (o *options) parse(s scenario, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet(s.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Func("url", "URLs of /ws, separated by commas; connections take turns (ws://127.0.0.1:8080/ws)", list(&o.urls))
	f.Func("api", "URLs of admin listeners to publish to, separated by commas (http://127.0.0.1:9090)", list(&o.apis))
	f.StringVar(&o.apiKey, "api-key", o.apiKey, "key of the server API (GATEWAY_API_KEY)")
	f.StringVar(&o.secret, "jwt-secret", o.secret, "secret that signs the tokens (GATEWAY_JWT_SECRET)")
	f.IntVar(&o.connections, "connections", o.connections, "connections, each of a user of its own")
	f.IntVar(&o.rooms, "rooms", o.rooms, "rooms that the connections are spread over")
	f.IntVar(&o.roomsEach, "rooms-each", o.roomsEach, "rooms that each connection is in")
	f.IntVar(&o.size, "size", o.size, "bytes of data of a message")
	f.IntVar(&o.inFlight, "in-flight", o.inFlight, "messages under way at a time: the next is published when one has arrived everywhere")
	f.IntVar(&o.rate, "rate", o.rate, "messages a second, whatever has arrived, in the place of --in-flight")
	f.DurationVar(&o.warmUp, "warm-up", o.warmUp, "load before anything is measured")
	f.DurationVar(&o.duration, "duration", o.duration, "how long is measured")
	f.IntVar(&o.parallel, "parallel", o.parallel, "connections that are being made at a time")
	f.Func("pid", "processes to report CPU time and memory of, as gateway=123,redis=456; a name may come more than once", func(v string) error {
		return parsePIDs(v, &o.pids)
	})
	f.StringVar(&o.json, "json", o.json, "file for the figures as JSON; - prints one line of JSON in the place of the table")
	f.StringVar(&o.name, "name", o.name, "what the names of users and rooms begin with: several runs at a time need different ones")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stdout, "Usage: gateway-bench %s [flags]\n\nLoad: %s.\n\n", s.name, s.summary)
		f.SetOutput(stdout)
		f.PrintDefaults()
	}
	if err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is not expected", f.Arg(0))
	}
	return o.validate()
}

func (o *options) validate() error {
	for _, u := range o.urls {
		if p, err := url.Parse(u); err != nil || p.Scheme != "ws" && p.Scheme != "wss" || p.Host == "" {
			return fmt.Errorf("--url: %q is not a ws:// or wss:// URL", u)
		}
	}
	for _, u := range o.apis {
		if p, err := url.Parse(u); err != nil || p.Scheme != "http" && p.Scheme != "https" || p.Host == "" {
			return fmt.Errorf("--api: %q is not an http:// or https:// URL", u)
		}
	}
	if o.secret == "" {
		return errors.New("--jwt-secret (GATEWAY_JWT_SECRET) is required")
	}
	for _, n := range []struct {
		flag       string
		value, min int
	}{
		{"connections", o.connections, 1}, {"rooms", o.rooms, 1}, {"rooms-each", o.roomsEach, 1}, {"in-flight", o.inFlight, 1},
		{"rate", o.rate, 0}, {"size", o.size, 0}, {"parallel", o.parallel, 1},
		{"duration", int(o.duration), 1}, {"warm-up", int(o.warmUp), 0},
	} {
		if n.value < n.min {
			return fmt.Errorf("--%s: must be at least %d", n.flag, n.min)
		}
	}
	if o.roomsEach > o.rooms {
		return errors.New("--rooms-each: must be at most --rooms")
	}
	return nil
}

func list(to *[]string) func(string) error {
	return func(v string) error {
		*to = strings.Split(v, ",")
		return nil
	}
}

func parsePIDs(v string, to *[]watched) error {
	for part := range strings.SplitSeq(v, ",") {
		name, number, named := strings.Cut(part, "=")
		if !named {
			name, number = "", part
		}
		pid, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("%q is not a process id", number)
		}
		*to = append(*to, watched{cmp.Or(name, "server"), pid})
	}
	return nil
}
