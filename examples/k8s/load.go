package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// way is how clients reach the gateways.
type way struct{ name, url string }

// The ClusterIP is what a pod of the same cluster uses, the Ingress what is
// outside: gateway.test is Traefik, by the load pods' hosts file.
var ways = []way{
	{"clusterip", "ws://" + release + "/ws"},
	{"ingress", "ws://" + ingressHost + "/ws"},
}

// load is gateway-bench roll in a pod: clients that follow the protocol, and
// somebody who publishes steadily.
type load struct {
	way    way
	pod    string
	cancel context.CancelFunc
	ready  chan struct{} // closed when all clients are connected
	done   chan struct{} // closed when the pod has said its last

	mu  sync.Mutex // guards what follows
	log strings.Builder
}

const loadPod = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: load}}
spec:
  restartPolicy: Never
  enableServiceLinks: false
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 90
  nodeSelector: {kubernetes.io/hostname: %[2]s}
  hostAliases: [{ip: %[3]q, hostnames: [%[4]s]}]
  securityContext: {runAsNonRoot: true}
  containers:
    - name: load
      image: %[5]s
      imagePullPolicy: IfNotPresent
      args: [roll, --name, %[6]q, --url, %[7]q, --api, "http://%[8]s-admin:9090", --connections, "%[9]d", --rate, "%[10]d", --rooms, "%[11]d", --duration, 1h, --json, "-"]
      env: [{name: GATEWAY_JWT_SECRET, value: %[12]q}, {name: GATEWAY_API_KEY, value: %[13]q}]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// startLoad has so many clients connect in each way, with rate messages a second.
func (w *world) startLoad(ctx context.Context, rate int) ([]*load, error) {
	var all []*load
	for _, way := range ways {
		l := &load{way: way, pod: "load-" + way.name, ready: make(chan struct{}), done: make(chan struct{})}
		manifest := fmt.Sprintf(loadPod, l.pod, w.cluster.stable(), w.traefik, ingressHost, benchImage,
			way.name, way.url, release, w.clients, rate, max(1, w.clients/10), secret, apiKey)
		if err := kubectl(ctx, "apply", "-f", "-").feed(manifest).run(); err != nil {
			return all, err
		}
		all = append(all, l)
		if err := kubectl(ctx, "wait", "--for=condition=Ready", "pod/"+l.pod, "--timeout=60s").run(); err != nil {
			return all, err
		}
		if err := l.follow(ctx); err != nil {
			return all, err
		}
	}
	for _, l := range all {
		select {
		case <-l.ready:
		case <-l.done:
			return all, fmt.Errorf("%s: %s", l.pod, l.said())
		case <-time.After(time.Minute):
			return all, fmt.Errorf("%s: not connected: %s", l.pod, l.said())
		}
	}
	return all, nil
}

// follow reads what the pod says, from its start to its end.
func (l *load) follow(ctx context.Context) error {
	ctx, l.cancel = context.WithCancel(ctx)
	c := kubectl(ctx, "logs", "-f", l.pod)
	out, in := io.Pipe()
	c.Stdout, c.Stderr = in, in
	if err := c.Start(); err != nil {
		return err
	}
	go func() { _ = in.CloseWithError(c.Wait()) }() // read to the end below, however it ends
	go func() {
		defer close(l.done)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		connected := false
		for lines.Scan() {
			l.mu.Lock()
			fmt.Fprintln(&l.log, lines.Text())
			l.mu.Unlock()
			if !connected && strings.Contains(lines.Text(), "roll the nodes now") {
				connected = true
				close(l.ready)
			}
		}
	}()
	return nil
}

func (l *load) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return tail(l.log.String())
}

// stop ends the load, waits for what is under way, and returns what came of it.
func (l *load) stop(ctx context.Context) (figures, error) {
	defer l.cancel()
	if err := kubectl(ctx, "delete", "pod", l.pod, "--wait=true", "--timeout=120s").run(); err != nil {
		return nil, err
	}
	select {
	case <-l.done:
	case <-time.After(10 * time.Second):
		return nil, fmt.Errorf("%s: its log does not end", l.pod)
	}
	var report struct {
		Figures []struct {
			Name  string
			Value float64
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.log.String()) {
		if strings.HasPrefix(line, "{") {
			if err := json.Unmarshal([]byte(line), &report); err != nil {
				return nil, err
			}
		}
	}
	if len(report.Figures) == 0 {
		return nil, fmt.Errorf("%s: no report:\n%s", l.pod, tail(l.log.String()))
	}
	f := make(figures)
	for _, figure := range report.Figures {
		f[figure.Name] = figure.Value
	}
	return f, nil
}

// figures are those of gateway-bench, by name.
type figures map[string]float64

// wrong returns the names of those that must be nothing and are not.
func (f figures) wrong() []string {
	var wrong []string
	for _, name := range []string{"lost", "repeated", "out of order", "gaps told", "connections dropped"} {
		if n, ok := f[name]; !ok || n > 0 {
			wrong = append(wrong, name)
		}
	}
	if f["published"] == 0 || f["received"] < f["published"] {
		wrong = append(wrong, "nothing was measured")
	}
	return wrong
}

func (f figures) String() string {
	return fmt.Sprintf("%5.0f published, %6.0f received, %2.0f lost, %2.0f repeated, %2.0f out of order, %2.0f gaps; %3.0f reconnects (%3.0f handovers), at most %2.0f/s; without a connection %3.0f ms p50, %4.0f max; latency %5.1f ms p50, %6.1f p99",
		f["published"], f["received"], f["lost"], f["repeated"], f["out of order"], f["gaps told"],
		f["reconnects"], f["of them handovers"], f["peak reconnects/s"], f["without a connection p50"], f["without a connection max"], f["latency p50"], f["latency p99"])
}

// under does something while clients are connected and messages flow, and returns
// what they noticed, by way.
func (w *world) under(ctx context.Context, rate int, do func(context.Context) error) (map[string]figures, error) {
	loads, err := w.startLoad(ctx, rate)
	defer func() {
		for _, l := range loads {
			l.cancel()
		}
	}()
	if err != nil {
		return nil, err
	}
	const calm = 2 * time.Second
	err = errors.Join(pause(ctx, calm), do(ctx), pause(ctx, calm))
	got := make(map[string]figures)
	for _, l := range loads {
		f, stopErr := l.stop(ctx)
		err = errors.Join(err, stopErr)
		got[l.way.name] = f
	}
	return got, err
}
