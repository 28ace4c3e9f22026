//go:build chart

// Package charts_test renders the chart with the real helm and looks at what comes
// out. It needs helm, helm-docs and promtool (`make chart` gets them).
package charts_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const chart = "gateway"

// least are the values without which there is no release.
var least = []string{"--set", "auth.jwtSecret=a-secret-of-thirty-two-bytes-or-more", "--set", "redis.url=redis://redis:6379"}

// helm runs helm and returns what it says on both outputs.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "helm", args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err
}

// template renders the chart for the oldest Kubernetes that it takes.
func template(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return helm(t, append([]string{"template", "gw", chart, "--kube-version", "1.27.0"}, args...)...)
}

// object is one of what the chart makes.
type object struct {
	Kind     string
	Metadata struct {
		Name   string
		Labels map[string]string
	}
	Spec       map[string]any
	Data       map[string]string
	StringData map[string]string `yaml:"stringData"`
}

// at returns what is at a path of the spec, such as template.spec.containers.0.env.
func (o object) at(path string) any {
	var v any = o.Spec
	for key := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[key]
		case []any:
			if key != "0" || len(in) == 0 {
				return nil
			}
			v = in[0]
		default:
			return nil
		}
	}
	return v
}

// render returns the objects of a release, by kind and name.
func render(t *testing.T, args ...string) map[string]object {
	t.Helper()
	out, err := template(t, args...)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all := make(map[string]object)
	for part := range strings.SplitSeq(out, "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(strings.TrimPrefix(part, "---\n")), &o); err != nil {
			t.Fatalf("%v:\n%s", err, part)
		}
		if o.Kind != "" {
			all[o.Kind+"/"+o.Metadata.Name] = o
		}
	}
	return all
}

func TestValuesForCIRenderAndLint(t *testing.T) {
	files, err := filepath.Glob(chart + "/ci/*-values.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		if out, err := helm(t, "lint", "--strict", chart, "--kube-version", "1.27.0", "-f", file); err != nil {
			t.Errorf("%s: %s", file, out)
		}
		for name, o := range render(t, "-f", file) {
			if o.Metadata.Labels["app.kubernetes.io/instance"] != "gw" {
				t.Errorf("%s: %s has not the labels of the release", file, name)
			}
		}
	}
}

func TestContradictionsAreSaid(t *testing.T) {
	for _, test := range []struct{ set, want string }{
		{"auth.existingSecret=x", "auth: give either existingSecret, or jwtSecret and apiKey, not both"},
		{"auth.jwtSecret=", "auth: the gateway needs the secret that client tokens are signed with"},
		{"auth.jwtSecret=short", "/auth/jwtSecret"},
		{"auth.apiKey=short", "/auth/apiKey"},
		{"redis.url=", "redis: the gateway needs a Redis"},
		{"redis.trial.enabled=true", "redis: give only one of"},
		{"redis.url=http://redis", "/redis/url"},
		{"config.redis=redis://x", "config.redis: does not belong there; set redis.url"},
		{"config.jwt_secret=x", "config.jwt_secret: does not belong there; set auth.jwtSecret"},
		{"config.pprof=true", "config.pprof: shows the memory of the process"},
		{"redis.trial.password=a b", "/redis/trial/password"},
		{"config.admin_listen=:1", "config.admin_listen: does not belong there; set ports.admin"},
		{"config.drain_timeout=4s", "drain_delay (5s) must be shorter than drain_timeout (4s)"},
		{"config.drain_timeout=soon", `"soon" is not a duration`},
		{"ports.admin=8080", "ports: http and admin must not be the same"},
		{"autoscaling.enabled=true,keda.enabled=true,keda.serverAddress=http://p", "autoscaling and keda: only one"},
		{"autoscaling.enabled=true,autoscaling.minReplicas=20", "minReplicas must not be more than maxReplicas"},
		{"autoscaling.enabled=true,autoscaling.targetCPUPercent=0", "there is nothing to scale by"},
		{"autoscaling.enabled=true,resources.requests.cpu=", "resources.requests.cpu: is needed"},
		{"keda.enabled=true", "keda.serverAddress: is needed"},
		{"podDisruptionBudget.minAvailable=1", "give maxUnavailable or minAvailable"},
		{"podDisruptionBudget.minAvailable=2,podDisruptionBudget.maxUnavailable=null", "would keep every machine from being emptied"},
		{"monitoring.serviceMonitor.enabled=true,monitoring.podMonitor.enabled=true", "would scrape every pod twice"},
		{"httpRoute.enabled=true", "httpRoute.parentRefs: name the Gateway"},
		{"service.nodePort=30000", "service.nodePort: needs service.type"},
		{"resources.limits.memory=lots", "is not a quantity"},
		{"extraEnv[0].name=GATEWAY_REDIS,extraEnv[0].value=x", "extraEnv: the chart sets the variable itself; set redis.url"},
		{"extraEnv[0].name=GATEWAY_PPROF,extraEnv[0].value=1", "extraEnv: the chart sets the variable itself; set config.pprof"},
		{"replcas=3", "replcas"},
		{"service.type=Cluster", "/service/type"},
	} {
		out, err := template(t, append(least[:len(least):len(least)], "--set", test.set)...)
		if err == nil || !strings.Contains(out, test.want) {
			t.Errorf("%s: want a failure with %q, got %v: %s", test.set, test.want, err, out[:min(len(out), 400)])
		}
	}
}

func TestGracePeriodFollowsTheDrain(t *testing.T) {
	for timeout, want := range map[string]string{"": "35", "90s": "95", "1m30s": "95", "1.5m": "95", "30500ms": "36"} {
		args := least
		if timeout != "" {
			args = append(args[:len(args):len(args)], "--set-string", "config.drain_timeout="+timeout)
		}
		out, err := template(t, args...)
		if err != nil || !strings.Contains(out, "terminationGracePeriodSeconds: "+want+"\n") {
			t.Errorf("drain_timeout %q: want a grace period of %s: %v", timeout, want, err)
		}
	}
}

func TestPodsAreLockedDown(t *testing.T) {
	all := render(t, append(least, "--set", "redis.url=", "--set", "redis.trial.enabled=true")...)
	for _, name := range []string{"Deployment/gw-gateway", "Deployment/gw-gateway-redis"} {
		d, ok := all[name]
		if !ok {
			t.Fatalf("there is no %s", name)
		}
		for path, want := range map[string]any{
			"template.spec.automountServiceAccountToken":                          false,
			"template.spec.enableServiceLinks":                                    false,
			"template.spec.securityContext.runAsNonRoot":                          true,
			"template.spec.securityContext.seccompProfile.type":                   "RuntimeDefault",
			"template.spec.containers.0.securityContext.allowPrivilegeEscalation": false,
			"template.spec.containers.0.securityContext.readOnlyRootFilesystem":   true,
			"template.spec.containers.0.securityContext.capabilities.drop.0":      "ALL",
		} {
			if got := d.at(path); got != want {
				t.Errorf("%s: %s is %v, want %v", name, path, got, want)
			}
		}
	}
}

func TestNoPodIsMissingInAnUpdate(t *testing.T) {
	d := render(t, least...)["Deployment/gw-gateway"]
	for path, want := range map[string]any{
		"strategy.rollingUpdate.maxUnavailable": uint64(0), "strategy.rollingUpdate.maxSurge": uint64(1),
		"minReadySeconds": uint64(5), "replicas": uint64(2),
	} {
		if got := d.at(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	for _, probe := range []string{"startupProbe", "readinessProbe", "livenessProbe"} {
		if d.at("template.spec.containers.0."+probe+".httpGet.port") != "admin" {
			t.Errorf("no %s", probe)
		}
	}
}

func TestAutoscalersOwnTheReplicas(t *testing.T) {
	for _, args := range [][]string{
		{"--set", "autoscaling.enabled=true"},
		{"--set", "keda.enabled=true,keda.serverAddress=http://p:9090"},
	} {
		all := render(t, append(least[:len(least):len(least)], args...)...)
		if got := all["Deployment/gw-gateway"].at("replicas"); got != nil {
			t.Errorf("%v: replicas %v beside an autoscaler", args, got)
		}
		_, hpa := all["HorizontalPodAutoscaler/gw-gateway"]
		_, keda := all["ScaledObject/gw-gateway"]
		if hpa == keda {
			t.Errorf("%v: want one autoscaler", args)
		}
	}
}

// TestChangesRollThePods: what the pods read at their start is in their template, by
// its checksum; and nothing else is.
func TestChangesRollThePods(t *testing.T) {
	template := func(args ...string) string {
		b, err := yaml.Marshal(render(t, append(least[:len(least):len(least)], args...)...)["Deployment/gw-gateway"].at("template"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := template()
	for _, set := range []string{"config.log_level=debug", "auth.jwtSecret=another-secret-of-thirty-two-bytes", "auth.apiKey=a-key-of-twenty-bytes", "redis.url=redis://other:6379"} {
		if template("--set", set) == before {
			t.Errorf("%s does not roll the pods", set)
		}
	}
	for _, set := range []string{"replicas=5", "service.type=LoadBalancer", "ingress.enabled=true", "monitoring.dashboard.enabled=true"} {
		if template("--set", set) != before {
			t.Errorf("%s rolls the pods", set)
		}
	}
}

func TestConfigIsTheGatewaysFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "values.yaml")
	values := "config: {calls: {max_len: 5000000}, limits: {frame_size: 1048576}, tracing: {sample: 0.5}, origins: ['*.example.com']}\n"
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	got := render(t, append(least[:len(least):len(least)], "-f", file)...)["ConfigMap/gw-gateway"].Data["gateway.yaml"]
	want := "admin_listen: :9090\ncalls:\n  max_len: 5000000\nlimits:\n  frame_size: 1048576\nlisten: :8080\nlog_format: json\norigins:\n- '*.example.com'\ntracing:\n  sample: 0.5"
	if strings.TrimSpace(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestMemoryLimitIsToldToGo(t *testing.T) {
	for limit, want := range map[string]string{"512Mi": "375809638", "1Gi": "751619276", "1G": "700000000", "1073741824": "751619276"} {
		out, err := template(t, append(least[:len(least):len(least)], "--set-string", "resources.limits.memory="+limit)...)
		if err != nil || !strings.Contains(out, "name: GOMEMLIMIT\n              value: \""+want+"\"") {
			t.Errorf("memory %s: want GOMEMLIMIT %s: %v", limit, want, err)
		}
	}
	out, _ := template(t, append(least[:len(least):len(least)], "--set", "goMemoryPercent=0")...)
	if strings.Contains(out, "GOMEMLIMIT") {
		t.Error("GOMEMLIMIT is there with goMemoryPercent 0")
	}
}

func TestAlertsOfTheRelease(t *testing.T) {
	out, err := template(t, append(least[:len(least):len(least)], "--set", "monitoring.prometheusRule.enabled=true,monitoring.prometheusRule.runbookBase=https://git.example/x/")...)
	if err != nil || !strings.Contains(out, "runbook_url: https://git.example/x/docs/operations.md#gatewaydown\n") || strings.Contains(out, "runbook_url: docs") {
		t.Errorf("the runbooks are not where runbookBase says: %v", err)
	}
}

func TestReadmeIsGenerated(t *testing.T) {
	want, err := exec.CommandContext(t.Context(), "helm-docs", "--dry-run", "-l", "error", "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(chart + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(got)) != strings.TrimSpace(string(want)) {
		t.Error("charts/gateway/README.md is out of date: run make chart-readme")
	}
}

// TestAlerts has Prometheus's own tool check the rules and run their tests.
func TestAlerts(t *testing.T) {
	promtool(t, "check", "rules", chart+"/rules/gateway.rules.yaml")
	promtool(t, "test", "rules", chart+"/ci/alerts.test.yaml")
}

// TestDashboardAsksWhatPrometheusUnderstands makes rules of its queries, for promtool
// to parse.
func TestDashboardAsksWhatPrometheusUnderstands(t *testing.T) {
	b, err := os.ReadFile(chart + "/dashboards/gateway.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := yaml.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	type rule struct{ Record, Expr string }
	var rules []rule
	grafana := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$namespace", ".*", "$instance", ".*")
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			rules = append(rules, rule{fmt.Sprintf("panel:%d", len(rules)), grafana.Replace(target.Expr)})
		}
	}
	if len(rules) < 40 {
		t.Fatalf("only %d queries were found", len(rules))
	}
	b, err = yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v: %s", args, err, out)
	}
}

// TestOldKubernetesIsRefused: and a Helm that knows of no cluster is not (finding U10).
func TestOldKubernetesIsRefused(t *testing.T) {
	for version, ok := range map[string]bool{"1.26.9": false, "1.27.0": true, "1.34.4": true, "1.20.0": true} {
		if out, err := helm(t, append([]string{"template", "gw", chart, "--kube-version", version}, least...)...); (err == nil) != ok {
			t.Errorf("Kubernetes %s: %s", version, out[:min(len(out), 200)])
		}
	}
}

// TestRoutesHaveNoTimeoutsOfTheirOwn: some implementations refuse a route that has any
// (finding U10).
func TestRoutesHaveNoTimeoutsOfTheirOwn(t *testing.T) {
	with := append(least[:len(least):len(least)], "--set", "httpRoute.enabled=true,httpRoute.parentRefs[0].name=public")
	if got := render(t, with...)["HTTPRoute/gw-gateway"].at("rules.0.timeouts"); got != nil {
		t.Errorf("timeouts %v", got)
	}
	with = append(with, "--set", "httpRoute.timeouts.request=0s")
	if got := render(t, with...)["HTTPRoute/gw-gateway"].at("rules.0.timeouts.request"); got != "0s" {
		t.Errorf("timeout of a request %v, want 0s", got)
	}
}

// TestHelmTestPublishesAsABackend: also with a Secret of the operator's own, which may
// hold an API key (finding U6).
func TestHelmTestPublishesAsABackend(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   bool
	}{
		{least, false},
		{append(least[:len(least):len(least)], "--set", "auth.apiKey=a-key-of-twenty-bytes"), true},
		{[]string{"--set", "auth.existingSecret=mine,redis.url=redis://redis:6379"}, true},
	} {
		args := fmt.Sprint(render(t, test.values...)["Pod/gw-gateway-test"].at("containers.0.args"))
		if strings.Contains(args, "--api=http://gw-gateway-admin:9090") != test.want {
			t.Errorf("%v: arguments %s", test.values, args)
		}
	}
}

// TestTrialRedisWantsAPassword, the one that the gateway's URL has (finding L2).
func TestTrialRedisWantsAPassword(t *testing.T) {
	trial := []string{"--set", "redis.trial.enabled=true", "--set", "auth.jwtSecret=a-secret-of-thirty-two-bytes-or-more"}
	password := func(values ...string) string {
		all := render(t, append(trial[:len(trial):len(trial)], values...)...)
		args := fmt.Sprint(all["Deployment/gw-gateway-redis"].at("template.spec.containers.0.args"))
		if !strings.Contains(args, "--requirepass $(PASSWORD)") || strings.Contains(args, "protected-mode") {
			t.Errorf("arguments %s", args)
		}
		data := all["Secret/gw-gateway"].StringData
		if data["redis-url"] != "redis://:"+data["trial-redis-password"]+"@gw-gateway-redis:6379" {
			t.Errorf("URL %s", data["redis-url"])
		}
		return data["trial-redis-password"]
	}
	derived := password()
	if len(derived) < 32 || derived != password() || derived == password("--set", "auth.jwtSecret=another-secret-of-thirty-two-bytes") {
		t.Errorf("password %q", derived)
	}
	if got := password("--set", "redis.trial.password=Own1"); got != "Own1" {
		t.Errorf("password %q, want Own1", got)
	}
	if random := password("--set", "auth.jwtSecret=,auth.existingSecret=mine"); len(random) != 32 {
		t.Errorf("password %q, want 32 random letters and digits", random)
	}
}

// TestChecksumsOfSecretsHelpNobodyToGuess: they are short, and another release has
// another one for the same secrets (finding M5).
func TestChecksumsOfSecretsHelpNobodyToGuess(t *testing.T) {
	sum := func(args ...string) string {
		d := render(t, append(least[:len(least):len(least)], args...)...)
		s, _ := d["Deployment/gw-gateway"].at("template.metadata.annotations.checksum/secret").(string)
		return s
	}
	here, there := sum(), sum("--namespace", "other")
	if len(here) != 8 || len(there) != 8 || here == there {
		t.Errorf("checksums %q and %q", here, there)
	}
}
