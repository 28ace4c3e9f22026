package broker

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// patience is how long a test waits for what must happen: far beyond the
// slowest machine, as only a failure ever waits that long.
const patience = 40 * time.Second

// TestMain lets tests that mostly wait run side by side, and fails if one of
// them left a goroutine of this package behind.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // the command line comes later and wins
	code := m.Run()
	if left := leftover(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftover returns the stacks of the goroutines that run this package's code,
// apart from the caller's own.
func leftover() string {
	buf := make([]byte, 1<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	var left []string
	for _, s := range stacks[1:] {
		if strings.Contains(s, "wssgateway/broker.(*") {
			left = append(left, s)
		}
	}
	return strings.Join(left, "\n\n")
}

// node is a Broker that runs, with its own metrics.
type node struct {
	*Broker
	rdb  redis.UniversalClient
	reg  *prometheus.Registry
	stop func() // returns when Run has
}

// startNode runs a Broker until the test ends, and returns once it is ready.
func startNode(t testing.TB, rdb redis.UniversalClient, prefix, name string) *node {
	t.Helper()
	n := newNode(t, rdb, prefix, name)
	eventually(t, name+" is ready", func() bool { return n.Ready(patience) == nil })
	return n
}

// newNode is startNode for a Redis that may be away.
func newNode(t testing.TB, rdb redis.UniversalClient, prefix, name string) *node {
	t.Helper()
	n := &node{rdb: rdb, reg: prometheus.NewRegistry()}
	n.Broker = New(rdb, Config{Prefix: prefix, Node: name, Logger: logger(t), Registerer: n.reg})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(n.stop)
	return n
}

// logger writes to the test's log, but not for a benchmark, whose output it
// would spoil.
func logger(t testing.TB) *slog.Logger {
	if _, ok := t.(*testing.B); ok {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// subscribe makes the node receive a channel until the test ends.
func (n *node) subscribe(t testing.TB, channel string) *recorder {
	t.Helper()
	r := newRecorder()
	s, err := n.Subscribe(t.Context(), channel, true, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return r
}

// keep is the retention of tests that are not about it.
var keep = Retention{Size: 100_000, TTL: time.Hour}

// publish publishes one message and fails the test if that fails.
func (n *node) publish(t testing.TB, channel, payload string, r Retention) ID {
	t.Helper()
	id, err := n.Publish(t.Context(), Publication{Channel: channel, Payload: []byte(payload), Retention: r})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// publishMany publishes count messages, one after the other.
func (n *node) publishMany(t testing.TB, channel string, count int, r Retention) []ID {
	t.Helper()
	ids := make([]ID, count)
	for i := range ids {
		ids[i] = n.publish(t, channel, fmt.Sprint(i), r)
	}
	return ids
}

// metric returns the value of one of the node's counters or gauges; labels are
// pairs of name and value.
func (n *node) metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetName(), l.GetValue())
			}
			if f.GetName() == name && strings.Join(got, " ") == strings.Join(labels, " ") {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %v", name, labels)
	return 0
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
