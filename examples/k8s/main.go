// Command k8s installs the chart on a real Kubernetes of two machines and puts it
// through what happens to a Deployment in its life, with clients connected through
// the ClusterIP and through an Ingress: upgrade, restart, a deleted pod, a machine
// that is emptied, a rollback, an autoscaler, a machine that is killed, a Redis that
// is gone. It says what became of every message, and exits with 1 if that is not as
// it should be. Prometheus scrapes the pods meanwhile, with the alerts of the chart.
//
//	go run ./examples/k8s                       # a cluster of kind
//	K8S_LAB=../lab go run ./examples/k8s        # the scripts of a lab
//	go run ./examples/k8s -only upgrade -keep   # only that, and leave the cluster
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	release     = "gateway"
	ingressHost = "gateway.test"
	gatewayTag  = "e2e"
	image       = "gateway:" + gatewayTag
	benchImage  = "gateway-bench:" + gatewayTag
	secret      = "the secret of the lab, long enough for HS256"
	apiKey      = "the key of the lab, long enough"
)

func main() {
	w := &world{began: time.Now()}
	only := flag.String("only", "", "steps to take, separated by commas (all)")
	flag.BoolVar(&w.keep, "keep", false, "leave the cluster and the release as they are")
	flag.BoolVar(&w.built, "built", false, "take the images as they are")
	flag.IntVar(&w.clients, "clients", 150, "clients in each way")
	flag.Parse()
	if *only != "" {
		w.only = strings.Split(*only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := w.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "k8s: %v\n", err)
		os.Exit(1)
	}
}

// world is the cluster and what is in it.
type world struct {
	cluster cluster
	clients int
	keep    bool
	built   bool
	only    []string
	began   time.Time

	dir     string
	values  string // file of the first release
	traefik string // ClusterIP
	prom    *prometheus
	failed  []string
}

func (w *world) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

func (w *world) run(ctx context.Context) (err error) {
	if w.cluster, err = chooseCluster(); err != nil {
		return err
	}
	if err := lookFor(append(w.cluster.needs(), docker(), "prometheus", "promtool")); err != nil {
		return err
	}
	if w.dir, err = os.MkdirTemp("", "k8s"); err != nil {
		return err
	}
	defer os.RemoveAll(w.dir)
	defer func() {
		if w.prom != nil {
			w.prom.stop()
		}
		if !w.keep {
			err = errors.Join(err, w.cluster.down(context.WithoutCancel(ctx)))
		}
	}()
	if err := w.prepare(ctx); err != nil {
		return err
	}
	for _, s := range w.steps() {
		if len(w.only) > 0 && !s.always && !slices.Contains(w.only, s.name) {
			continue
		}
		if err := w.take(ctx, s); err != nil {
			w.failed = append(w.failed, s.name)
			w.say("FAIL  %s: %v", s.name, err)
			if s.always || ctx.Err() != nil {
				break // nothing works without it
			}
		}
	}
	if len(w.failed) > 0 {
		return fmt.Errorf("not as it should be: %s", strings.Join(w.failed, ", "))
	}
	w.say("all as it should be")
	return nil
}

// prepare makes the cluster, the images and the values.
func (w *world) prepare(ctx context.Context) error {
	if err := w.cluster.up(ctx); err != nil {
		return err
	}
	w.say("cluster up")
	if !w.built {
		build := command(ctx, ".ci/image")
		build.Env = append(os.Environ(), "IMAGE="+image, "BENCH="+benchImage)
		said, err := build.output()
		if err != nil {
			return err
		}
		for line := range strings.Lines(said) {
			if strings.HasPrefix(line, "image: ") {
				w.say("%s", strings.TrimSpace(line))
			}
		}
	}
	for _, name := range []string{image, benchImage} {
		if err := w.cluster.load(ctx, name); err != nil {
			return err
		}
	}
	redis, err := w.cluster.redis(ctx)
	if err != nil {
		return err
	}
	w.say("images on the machines: %s, %s, %s", image, benchImage, redis)
	w.values = filepath.Join(w.dir, "values.yaml")
	if err := os.WriteFile(w.values, fmt.Appendf(nil, valuesFile, gatewayTag, secret, apiKey, redis, w.cluster.stable(), ingressHost), 0o600); err != nil {
		return err
	}
	w.traefik, err = kubectl(ctx, "-n", "traefik", "get", "service", "traefik", "-o", "jsonpath={.spec.clusterIP}").output()
	return err
}

// valuesFile is the release: two gateways, and a Redis on the machine that stays.
// The times of the drain are short, since there are few clients and many steps.
const valuesFile = `
image: {repository: docker.io/library/gateway, tag: %s}
auth: {jwtSecret: %q, apiKey: %q}
redis:
  trial:
    enabled: true
    password: ` + redisPassword + `
    image: %s
    nodeSelector: {kubernetes.io/hostname: %s}
config:
  drain_delay: 3s
  drain_timeout: 15s
  limits: {clients: {web: {timeout: 10s}}}
  # For clients of a machine that was killed: they hear nothing for a while before
  # they look for another one.
  classes: {"*": {history: {size: 1000}}}
ingress: {enabled: true, className: traefik, controller: traefik, host: %s}
`
