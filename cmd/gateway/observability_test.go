package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const (
	rulesFile     = "../../charts/gateway/rules/gateway.rules.yaml"
	dashboardFile = "../../charts/gateway/dashboards/gateway.json"
	operationsDoc = "../../docs/operations.md"
)

// expression is a piece of PromQL, and where it stands.
type expression struct{ where, expr string }

// alert is a rule of rulesFile.
type alert struct {
	Alert       string
	Expr        string
	Labels      struct{ Severity string }
	Annotations map[string]string
}

func readAlerts(t *testing.T) []alert {
	t.Helper()
	b, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct{ Rules []alert }
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	var all []alert
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// dashboardExpressions returns the queries of all panels and variables.
func dashboardExpressions(t *testing.T) []expression {
	t.Helper()
	b, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	var all []expression
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all = append(all, expression{"panel " + p.Title, target.Expr})
		}
	}
	for _, v := range dashboard.Templating.List {
		all = append(all, expression{"variable " + v.Name, v.Definition})
	}
	return all
}

// exposed is what a node tells: for each metric the values of each label.
type exposed map[string]map[string][]string

var (
	sampleLine = regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? `)
	labelPair  = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"`)
	metricName = regexp.MustCompile(`\b((?:gateway|process|http|go)_[a-z_]+)(?:\{([^}]*)\})?`)
)

// scrape returns what a node tells once it has delivered a message and refused a
// client.
func scrape(t *testing.T) exposed {
	t.Helper()
	listen := freePort(t)
	node, admin := startNode(t, "--listen="+listen)
	defer func() {
		_ = node.Process.Kill()
		_ = node.Wait()
	}()
	if out, err := gatewayCommand(t, nil, "check", "ws://"+listen+"/ws", "--dev", "--api=http://"+admin).CombinedOutput(); err != nil {
		t.Fatalf("check: %v\n%s", err, out)
	}
	get(t, "http://"+listen+"/ws?access_token=bad&connect=1")
	metrics := make(exposed)
	for _, m := range sampleLine.FindAllStringSubmatch(get(t, "http://"+admin+"/metrics"), -1) {
		labels := metrics[m[1]]
		if labels == nil {
			labels = make(map[string][]string)
			metrics[m[1]] = labels
		}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = append(labels[l[1]], l[3])
		}
	}
	return metrics
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wrong returns what is in an expression and no node tells.
func (m exposed) wrong(expr string) (wrong []string) {
	for _, used := range metricName.FindAllStringSubmatch(expr, -1) {
		labels, ok := m[used[1]]
		if !ok {
			wrong = append(wrong, used[1])
			continue
		}
		for _, l := range labelPair.FindAllStringSubmatch(used[2], -1) {
			name, operator, value := l[1], l[2], l[3]
			if slices.Contains([]string{"namespace", "instance"}, name) { // Prometheus's own
				continue
			}
			values := []string{value}
			if operator == "=~" {
				values = strings.Split(value, "|")
			}
			for _, v := range values {
				if !slices.Contains(labels[name], v) {
					wrong = append(wrong, used[1]+"{"+name+"="+v+"}")
				}
			}
		}
	}
	return wrong
}

// TestAlertsAndDashboardUseMetricsThatThereAre asks a real node, and whether
// docs/operations.md has them all.
func TestAlertsAndDashboardUseMetricsThatThereAre(t *testing.T) {
	metrics := scrape(t)
	doc, err := os.ReadFile(operationsDoc)
	if err != nil {
		t.Fatal(err)
	}
	all := dashboardExpressions(t)
	for _, a := range readAlerts(t) {
		all = append(all, expression{"alert " + a.Alert, a.Expr})
	}
	if len(all) < 60 {
		t.Fatalf("only %d expressions were found", len(all))
	}
	for _, e := range all {
		if wrong := metrics.wrong(e.expr); len(wrong) > 0 {
			t.Errorf("%s: no node tells %v: %s", e.where, wrong, e.expr)
		}
	}
	for name := range metrics {
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
		if strings.HasPrefix(name, "gateway_") && !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("docs/operations.md does not say what %s is", name)
		}
	}
}

// TestAlertsSayWhatToDo: each has a severity, words, and a place in the docs.
func TestAlertsSayWhatToDo(t *testing.T) {
	doc, err := os.ReadFile(operationsDoc)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range readAlerts(t) {
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels.Severity) {
			t.Errorf("%s: severity %q", a.Alert, a.Labels.Severity)
		}
		for _, name := range []string{"summary", "description", "runbook_url"} {
			if a.Annotations[name] == "" {
				t.Errorf("%s has no %s", a.Alert, name)
			}
		}
		if want := "docs/operations.md#" + strings.ToLower(a.Alert); a.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %q, want %q", a.Alert, a.Annotations["runbook_url"], want)
		}
		if !strings.Contains(string(doc), "\n### "+a.Alert+"\n") {
			t.Errorf("docs/operations.md has no section %s", a.Alert)
		}
	}
}
