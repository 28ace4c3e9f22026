package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	examples "wssgateway/examples/lab"
)

// prometheus is a Prometheus of this machine that scrapes the pods, through the API
// server since pods need not be reachable from here, and has the chart's alerts.
type prometheus struct {
	process *exec.Cmd
	url     string
	forget  context.CancelFunc // ends the list of targets
}

const prometheusConfig = `
global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}
rule_files: [%q]
scrape_configs:
  - job_name: gateway
    file_sd_configs: [{files: [%q], refresh_interval: 5s}]
    scheme: https
    tls_config: {ca_file: %q, cert_file: %q, key_file: %q}
`

// target is a pod, as file_sd_configs have it.
type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// listTargets tells Prometheus which pods there are until ctx is done: not every
// build of it can ask Kubernetes.
func (w *world) listTargets(ctx context.Context, file, server string) {
	for {
		pods, err := w.pods(ctx)
		if err == nil {
			err = writeTargets(file, server, pods)
		}
		if err != nil && ctx.Err() == nil {
			w.say("targets: %v", err)
		}
		if examples.Pause(ctx, time.Second) != nil {
			return
		}
	}
}

func writeTargets(file, server string, pods []pod) error {
	list := []target{}
	for _, p := range pods {
		if p.Status.Phase != "Running" {
			continue
		}
		list = append(list, target{[]string{server}, map[string]string{
			"__metrics_path__": "/api/v1/namespaces/default/pods/" + p.Metadata.Name + ":9090/proxy/metrics",
			"instance":         p.Metadata.Name, "pod": p.Metadata.Name, "namespace": "default",
		}})
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// credentials of the kubeconfig, as files.
func (w *world) credentials(ctx context.Context) (server string, files [3]string, err error) {
	out, err := kubectl(ctx, "config", "view", "--minify", "--raw", "--flatten", "-o",
		"jsonpath={.clusters[0].cluster.server} {.clusters[0].cluster.certificate-authority-data} {.users[0].user.client-certificate-data} {.users[0].user.client-key-data}").output()
	if err != nil {
		return "", files, err
	}
	fields := strings.Fields(out)
	if len(fields) != 4 {
		return "", files, errors.New("the kubeconfig has no client certificate")
	}
	for i, name := range []string{"ca.crt", "client.crt", "client.key"} {
		b, err := base64.StdEncoding.DecodeString(fields[i+1])
		if err != nil {
			return "", files, err
		}
		files[i] = filepath.Join(w.dir, name)
		if err := os.WriteFile(files[i], b, 0o600); err != nil {
			return "", files, err
		}
	}
	return strings.TrimPrefix(fields[0], "https://"), files, nil
}

func (w *world) startPrometheus(ctx context.Context) error {
	server, files, err := w.credentials(ctx)
	if err != nil {
		return err
	}
	rules, err := filepath.Abs(filepath.Join(chart, "rules", "gateway.rules.yaml"))
	if err != nil {
		return err
	}
	config, targets := filepath.Join(w.dir, "prometheus.yaml"), filepath.Join(w.dir, "targets.json")
	if err := os.WriteFile(config, fmt.Appendf(nil, prometheusConfig, rules, targets, files[0], files[1], files[2]), 0o600); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(w.dir, "prometheus.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	p := exec.Command("prometheus", "--config.file", config, "--storage.tsdb.path", filepath.Join(w.dir, "tsdb"), "--web.listen-address", address)
	p.Stdout, p.Stderr = log, log
	if err := p.Start(); err != nil {
		return err
	}
	listing, stopListing := context.WithCancel(ctx)
	go w.listTargets(listing, targets, server)
	w.prom = &prometheus{p, "http://" + address, stopListing}
	err = await(ctx, time.Minute, "Prometheus to scrape two gateways", func() (bool, error) {
		up, err := w.prom.query(ctx, `count(up == 1 and on (instance) gateway_build_info)`)
		return len(up) == 1 && up[0].Value[1] == "2", err
	})
	if err != nil {
		said, _ := os.ReadFile(log.Name()) // for the message only
		return fmt.Errorf("%w\n%s", err, tail(string(said)))
	}
	return nil
}

func (p *prometheus) stop() {
	p.forget()
	_ = p.process.Process.Kill()
	_ = p.process.Wait()
}

type sample struct {
	Metric map[string]string
	Value  [2]any // time, value
}

func (p *prometheus) query(ctx context.Context, expr string) ([]sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []sample }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer.Data.Result, nil
}

// await waits until alerts fire.
func (p *prometheus) await(ctx context.Context, alerts ...string) error {
	for _, name := range alerts {
		err := await(ctx, 4*time.Minute, "the alert "+name, func() (bool, error) { return p.firing(ctx, name) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *prometheus) firing(ctx context.Context, alert string) (bool, error) {
	firing, err := p.query(ctx, fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing"}`, alert))
	return len(firing) > 0, err
}

// quiet says which alerts have fired since.
func (p *prometheus) quiet(ctx context.Context, since time.Time) error {
	window := fmt.Sprintf("%ds", int(time.Since(since).Seconds())+1)
	fired, err := p.query(ctx, fmt.Sprintf(`count by (alertname) (max_over_time(ALERTS{alertstate="firing",severity!="info"}[%s]))`, window))
	if err != nil {
		return err
	}
	var names []string
	for _, s := range fired {
		names = append(names, s.Metric["alertname"])
	}
	if len(names) > 0 {
		slices.Sort(names)
		return fmt.Errorf("alerts have fired: %s", strings.Join(names, ", "))
	}
	return nil
}
