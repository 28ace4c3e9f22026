package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	examples "wssgateway/examples/lab"
)

// way is how clients reach the gateways, and backends their server API.
type way struct{ name, url, api string }

// The ClusterIP is what a pod of the same cluster uses, the Ingress what is
// outside: gateway.test is Traefik, by the load pods' hosts file.
var ways = []way{
	{"clusterip", "ws://" + release + "/ws", "http://" + release + "-admin:9090"},
	{"ingress", "ws://" + ingressHost + "/ws", "http://" + release + "-admin:9090"},
}

// live is the Service of a blue-green deployment.
var live = way{"live", "ws://gateway-live/ws", "http://gateway-live-admin:9090"}

// load is gateway-bench roll in a pod: clients that follow the protocol, and
// somebody who publishes steadily.
type load struct {
	way    way
	pod    string
	cancel context.CancelFunc
	ready  chan struct{} // closed when all clients are connected
	done   chan struct{} // closed when the pod has said its last

	// Set before done is closed.
	figures examples.Figures
	said    string
	err     error
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
      args: [roll, --name, %[6]q, --url, %[7]q, --api, %[8]q, --connections, "%[9]d", --rate, "%[10]d", --rooms, "%[11]d", --duration, 1h, --json, "-"]
      env: [{name: GATEWAY_JWT_SECRET, value: %[12]q}, {name: GATEWAY_API_KEY, value: %[13]q}]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// startLoad has so many clients connect in each of the ways, with rate messages a second.
func (w *world) startLoad(ctx context.Context, by []way, rate int) ([]*load, error) {
	var all []*load
	for _, way := range by {
		l := &load{way: way, pod: "load-" + way.name, ready: make(chan struct{}), done: make(chan struct{})}
		manifest := fmt.Sprintf(loadPod, l.pod, w.cluster.stable(), w.traefik, ingressHost, benchImage,
			way.name, way.url, way.api, w.clients, rate, max(1, w.clients/10), secret, apiKey)
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
			return all, fmt.Errorf("%s: %w\n%s", l.pod, l.err, tail(l.said))
		case <-time.After(time.Minute):
			return all, fmt.Errorf("%s: the clients are not connected", l.pod)
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
		l.figures, l.said, l.err = examples.ReadRoll(out, func() { close(l.ready) })
	}()
	return nil
}

// stop ends the load, waits for what is under way, and returns what came of it.
func (l *load) stop(ctx context.Context) (examples.Figures, error) {
	defer l.cancel()
	if err := kubectl(ctx, "delete", "pod", l.pod, "--wait=true", "--timeout=120s").run(); err != nil {
		return nil, err
	}
	select {
	case <-l.done:
	case <-time.After(10 * time.Second):
		return nil, fmt.Errorf("%s: its log does not end", l.pod)
	}
	if l.figures == nil {
		return nil, fmt.Errorf("%s: %w\n%s", l.pod, l.err, tail(l.said))
	}
	return l.figures, nil
}

// under does something while clients are connected and messages flow, and returns
// what they noticed, by way.
func (w *world) under(ctx context.Context, by []way, rate int, do func(context.Context) error) (map[string]examples.Figures, error) {
	loads, err := w.startLoad(ctx, by, rate)
	defer func() {
		for _, l := range loads {
			l.cancel()
		}
	}()
	if err != nil {
		return nil, err
	}
	const calm = 2 * time.Second
	err = errors.Join(examples.Pause(ctx, calm), do(ctx), examples.Pause(ctx, calm))
	got := make(map[string]examples.Figures)
	for _, l := range loads {
		f, stopErr := l.stop(ctx)
		err = errors.Join(err, stopErr)
		got[l.way.name] = f
	}
	return got, err
}
