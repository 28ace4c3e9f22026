package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"wssgateway/client"
	"wssgateway/examples/lab"
)

// growth prints what grows with what: connections, channels, nodes.
func (b *bench) growth(ctx context.Context) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "nodes\tconnections\tchannels\tconnecting\tmemory (RSS)\tper connection\tCPU at rest\tRedis commands at rest")
	for _, p := range []point{
		{1, 1000, 1000, 1}, {1, 5000, 5000, 1}, {1, 10000, 10000, 1}, {1, 19000, 19000, 1}, // 20,000 descriptors are a common limit
		{1, 1000, 10, 1}, {1, 1000, 10000, 10}, {1, 1000, 100000, 100},
		{2, 10000, 10000, 1}, {3, 10000, 10000, 1}, {4, 10000, 10000, 1},
	} {
		fmt.Fprintf(os.Stderr, "at rest: nodes %d, connections %d, channels %d\n", p.nodes, p.connections, p.rooms)
		if err := b.rest(ctx, w, p); err != nil {
			return fmt.Errorf("%+v: %w", p, err)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Println()
	fmt.Fprintln(w, "nodes, one of them with subscribers\tscripts per message\tRedis commands in all, those in scripts included")
	for nodes := 1; nodes <= 4; nodes++ {
		fmt.Fprintln(os.Stderr, "per message: nodes", nodes)
		if err := b.perMessage(ctx, w, nodes); err != nil {
			return err
		}
	}
	return w.Flush()
}

// point is one line of the table.
type point struct {
	nodes, connections, rooms, each int
}

// restConfig has pings go round in 15 s.
const restConfig = "limits: {clients: {web: {timeout: 30s}}}"

// open starts a Redis and nodes. If it fails, nothing is left of them.
func (b *bench) open(ctx context.Context, nodes int) (err error) {
	b.lab, err = lab.New(ctx, restConfig, "--save", "", "--appendonly", "no")
	if err == nil {
		b.program, err = b.lab.Build(ctx, "wssgateway/cmd/gateway-bench")
	}
	for i := 0; err == nil && i < nodes; i++ {
		var n *lab.Node
		if n, err = b.lab.AddNode(fmt.Sprint("node-", i)); err == nil {
			err = n.AwaitReady(ctx)
		}
	}
	if err != nil {
		return errors.Join(err, b.lab.Close())
	}
	return nil
}

// rest has connections do nothing, and looks at what that takes.
func (b *bench) rest(ctx context.Context, w *tabwriter.Writer, p point) (err error) {
	if err := b.open(ctx, p.nodes); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.lab.Close()) }()
	var urls []string
	for _, n := range b.lab.Nodes {
		urls = append(urls, "ws://"+n.Public+"/ws")
	}
	r := run{flags: []string{
		"--connections", strconv.Itoa(p.connections), "--rooms", strconv.Itoa(p.rooms), "--rooms-each", strconv.Itoa(p.each),
		"--url", strings.Join(urls, ","),
	}}
	commands := make(chan float64, 1)
	resting, stop := context.WithCancel(ctx)
	defer stop()
	go func() { commands <- b.atRest(resting) }()
	f, err := b.load(ctx, "gateway", "idle", r)
	if err != nil {
		return err
	}
	stop()
	fmt.Fprintf(w, "%d\t%d\t%d\t%.1f s\t%.0f MiB\t%.2f KiB\t%.1f ms/s\t%.1f/s\n", p.nodes, p.connections, p.rooms, f["connecting took"],
		f["server RSS"], f["server RSS per connection"], f["server CPU"], <-commands)
	return nil
}

// atRest returns how many commands per second Redis got in the quietest six seconds
// until ctx is done: those while nothing happened.
func (b *bench) atRest(ctx context.Context) float64 {
	const span = 6 * time.Second // heartbeats come every three
	least := -1.0
	for {
		before, err := b.commands(ctx)
		if err != nil || lab.Pause(ctx, span) != nil {
			return least
		}
		after, err := b.commands(ctx)
		if err != nil {
			return least
		}
		perSecond := float64(after.all-before.all-1) / span.Seconds() // one is the INFO
		if least < 0 || perSecond < least {
			least = perSecond
		}
	}
}

// counts are commands that Redis has run: all, those inside scripts included, and
// the scripts.
type counts struct{ all, scripts int }

func (b *bench) commands(ctx context.Context) (c counts, err error) {
	stats, err := b.lab.Redis.Info(ctx, "commandstats")
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(stats) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(rest, ",")
		calls, err := strconv.Atoi(number)
		if err != nil {
			return c, err
		}
		if c.all += calls; name == "evalsha" || name == "eval" {
			c.scripts += calls
		}
	}
	return c, nil
}

// perMessage publishes to a channel that one of the nodes has a subscriber of.
func (b *bench) perMessage(ctx context.Context, w *tabwriter.Writer, nodes int) (err error) {
	const messages = 1000
	if err := b.open(ctx, nodes); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.lab.Close()) }()
	got := make(chan struct{}, messages)
	c, err := client.New("ws://"+b.lab.Nodes[0].Public+"/ws", client.Options{
		Token: func(context.Context) (string, error) { return lab.Token("alice") },
	})
	if err != nil {
		return err
	}
	if _, err := c.Subscribe("bench:1", client.Handler{Message: func(client.Message) { got <- struct{}{} }}); err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(running) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()
	if err := c.AwaitConnected(ctx); err != nil {
		return err
	}
	before, err := b.commands(ctx)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"channel": "bench:1", "data": "x"})
	if err != nil {
		return err
	}
	publisher := b.lab.Nodes[len(b.lab.Nodes)-1]
	for range messages {
		if _, err := publisher.Publish(ctx, body); err != nil {
			return err
		}
		select {
		case <-got:
		case <-time.After(5 * time.Second):
			return errors.New("a message did not come")
		}
	}
	after, err := b.commands(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%d\t%.2f\t%.2f\n", nodes, float64(after.scripts-before.scripts)/messages, float64(after.all-before.all)/messages)
	return nil
}
