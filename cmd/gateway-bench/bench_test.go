package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wssgateway/broker"
	"wssgateway/examples/lab"
)

// bench runs a command as a user would, and returns what it printed.
func runBench(t *testing.T, wantCode int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(args, &out, &errs); code != wantCode {
		t.Fatalf("gateway-bench %s: code %d, want %d\n%s\n%s", strings.Join(args, " "), code, wantCode, &out, &errs)
	}
	return out.String(), errs.String()
}

// TestScenarios runs each of them, small, against a gateway and a Redis that are
// processes of their own.
func TestScenarios(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := lab.New(ctx, "limits: {clients: {web: {timeout: 2s}}}")
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var urls, apis []string
	for _, name := range []string{"one", "two"} {
		n, err := l.AddNode(name)
		if err == nil {
			err = n.AwaitReady(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		urls, apis = append(urls, "ws://"+n.Public+"/ws"), append(apis, "http://"+n.Admin)
	}
	common := []string{
		"--url", strings.Join(urls, ","), "--api", strings.Join(apis, ","), "--api-key", lab.APIKey, "--jwt-secret", lab.Secret,
		"--connections", "60", "--warm-up", "100ms", "--duration", "1s",
		"--pid", fmt.Sprintf("gateway=%d,gateway=%d,redis=%d", l.Nodes[0].PID(), l.Nodes[1].PID(), l.Redis.PID()),
	}
	for _, test := range []struct {
		args []string
		want map[string]float64 // figures that are exactly so
		more []string           // figures that are more than 0
	}{
		{[]string{"idle"}, map[string]float64{"published": 1, "received": 60}, []string{"gateway RSS"}},
		{[]string{"fanout", "--in-flight", "4"}, nil, []string{"deliveries/s", "latency p50"}},
		{[]string{"fanout", "--rooms", "7", "--rooms-each", "3", "--rate", "50"}, nil, []string{"deliveries/s", "latency p99"}},
		{[]string{"direct", "--in-flight", "8"}, nil, []string{"messages/s", "latency p99"}},
		{[]string{"storm"}, map[string]float64{"published": 2, "received": 120, "new sessions": 0}, []string{"connections/s"}},
		{[]string{"roll", "--rate", "50"}, map[string]float64{"reconnects": 0}, []string{"published", "latency p50"}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "report.json")
			stdout, _ := runBench(t, exitOK, append(append(test.args, common...), "--json", file)...)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var r report
			if err := json.Unmarshal(b, &r); err != nil || r.Scenario != test.args[0] {
				t.Fatalf("%s: %v", b, err)
			}
			got := make(map[string]float64)
			for _, f := range r.Figures {
				got[f.Name] = f.Value
				if !strings.Contains(stdout, f.Name) {
					t.Errorf("%s was not printed", f.Name)
				}
			}
			for name, want := range test.want {
				if got[name] != want {
					t.Errorf("%s: %v, want %v", name, got[name], want)
				}
			}
			for _, name := range append(test.more, "published", "received") {
				if got[name] <= 0 {
					t.Errorf("%s: %v", name, got[name])
				}
			}
			for _, name := range []string{"lost", "repeated", "out of order", "gaps told", "connections dropped"} {
				if v, ok := got[name]; !ok || v != 0 {
					t.Errorf("%s: %v", name, got[name])
				}
			}
		})
	}
}

// TestWrongUse: every mistake is one line that names the flag, and code 2.
// interrupter is a stderr on which a line says that it is time for a signal.
type interrupter struct {
	t    *testing.T
	line string
	once sync.Once
}

func (i *interrupter) Write(b []byte) (int, error) {
	if strings.Contains(string(b), i.line) {
		i.once.Do(func() {
			if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				i.t.Error(err)
			}
		})
	}
	return len(b), nil
}

func TestASignalEndsTheLoadOfARoll(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := lab.New(ctx, "")
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := l.AddNode("one")
	if err == nil {
		err = n.AwaitReady(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code := run([]string{
		"roll", "--url", "ws://" + n.Public + "/ws", "--api", "http://" + n.Admin, "--api-key", lab.APIKey, "--jwt-secret", lab.Secret,
		"--connections", "10", "--duration", "1h", "--name", "other", "--json", "-",
	}, &out, &interrupter{t: t, line: "roll the nodes now"})
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || code != exitOK {
		t.Fatalf("code %d, %v: %s", code, err, &out)
	}
	figures := make(map[string]float64)
	for _, f := range r.Figures {
		figures[f.Name] = f.Value
	}
	if figures["published"] == 0 || figures["received"] < figures["published"] || figures["lost"] != 0 {
		t.Errorf("%s", &out)
	}
}

func TestWrongUse(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"nothing": `"nothing" is not a command`,
		"idle":    "--jwt-secret (GATEWAY_JWT_SECRET) is required",
		"idle --jwt-secret x --url http://127.0.0.1/ws": "--url: \"http://127.0.0.1/ws\" is not a ws:// or wss:// URL",
		"idle --jwt-secret x --api 127.0.0.1:9090":      "--api:",
		"idle --jwt-secret x --connections 0":           "--connections: must be at least 1",
		"idle --jwt-secret x --rooms 1 --rooms-each 2":  "--rooms-each: must be at most --rooms",
		"idle --jwt-secret x --connections ten":         "-connections",
		"idle --jwt-secret x --pid gateway=me":          `"me" is not a process id`,
		"idle --jwt-secret x what":                      `"what" is not expected`,
		"floor --nope":                                  "-nope",
	} {
		stdout, stderr := runBench(t, exitUsage, strings.Fields(args)...)
		if stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%s: %q %q", args, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"help"}, {"--help"}, {"idle", "--help"}, {"floor", "-h"}} {
		if stdout, stderr := runBench(t, exitOK, args...); !strings.HasPrefix(stdout, "Usage: gateway-bench") || stderr != "" {
			t.Errorf("%v: %q %q", args, stdout, stderr)
		}
	}
}

// TestNobodyThere: what cannot be reached is said, and code 1.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	_, stderr := runBench(t, exitFailed, "idle", "--jwt-secret", "x", "--url", "ws://127.0.0.1:1/ws", "--connections", "3")
	if !strings.Contains(stderr, "127.0.0.1:1") {
		t.Errorf("%q", stderr)
	}
}

// TestWhatIsWrongIsSeen: the checks that every run ends with find what they are
// for.
func TestWhatIsWrongIsSeen(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		came                       []int // numbers, in this order; ids ascend with them
		lost, repeated, disordered int
	}{
		"all":          {[]int{1, 2, 3, 200}, 0, 0, 0},
		"lost":         {[]int{1, 3, 200}, 1, 0, 0},
		"the last one": {[]int{1, 2, 3}, 1, 0, 0},
		"repeated":     {[]int{1, 2, 2, 3, 200}, 0, 1, 1},
		"out of order": {[]int{1, 3, 2, 200}, 0, 0, 1},
		"nothing":      {nil, 4, 0, 0},
	} {
		b := &bench{published: map[string][]int{"bench:0": {1, 2, 3, 200}}}
		s := &subscriber{bench: b, user: "a", rooms: []string{"bench:0"}, streams: make(map[string]*stream)}
		b.subscribers = []*subscriber{s}
		for _, n := range test.came {
			s.stream("bench:0").take(broker.ID{MS: uint64(n)}, n)
		}
		st := s.stream("bench:0")
		if b.missing() != test.lost || st.repeated != test.repeated || st.disordered != test.disordered {
			t.Errorf("%s: lost %d, repeated %d, out of order %d", name, b.missing(), st.repeated, st.disordered)
		}
		if err := b.verify(); (err == nil) != (name == "all") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMessagesOfTheBench(t *testing.T) {
	t.Parallel()
	data := string(note{n: 42, at: 1234567 * time.Nanosecond}.appendData(nil, 100))
	if len(data) != 100 || !json.Valid([]byte(data)) {
		t.Errorf("%d bytes: %s", len(data), data)
	}
	m, err := parseMessage([]byte(`bench:7","id":"1763672400123-5","data":` + data + `}`))
	if err != nil || string(m.channel) != "bench:7" || m.id.String() != "1763672400123-5" || m.note != (note{42, 1234567}) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, foreign := range []string{`bench:7`, `bench:7","data":1}`, `bench:7","id":"x","data":{"n":1,"at":2}}`, `bench:7","data":{"n":1}}`} {
		if _, err := parseMessage([]byte(foreign)); err == nil {
			t.Errorf("%s was taken", foreign)
		}
	}
}
