package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"wssgateway/gateway"
)

// longSecret is as long as a JWT secret has to be.
const longSecret = "a-secret-of-at-least-32-bytes-ok"

// enough is an environment that needs nothing else to be valid.
var enough = []string{"GATEWAY_REDIS=redis://127.0.0.1:6379", "GATEWAY_JWT_SECRET=" + longSecret}

// writeFile writes a YAML file and returns its path.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, env, args []string) *config {
	t.Helper()
	cfg, err := loadValid(env, args)
	if err != nil {
		t.Fatalf("loadValid(%q, %q): %v", env, args, err)
	}
	return cfg
}

func TestPrecedence(t *testing.T) {
	file := "--config=" + writeFile(t, "prefix: 'file:'\nlimits: {subscriptions: 7}\n")
	for _, test := range []struct {
		name              string
		env, args         []string
		wantPrefix        string
		wantSubscriptions int
	}{
		{"default", nil, nil, "gw:", 128},
		{"file over default", nil, []string{file}, "file:", 7},
		{"environment over file", []string{"GATEWAY_PREFIX=env:"}, []string{file}, "env:", 7},
		{"flag over environment", []string{"GATEWAY_PREFIX=env:", "GATEWAY_LIMITS_SUBSCRIPTIONS=8"},
			[]string{file, "--prefix", "flag:"}, "flag:", 8},
		{"flag over file", nil, []string{"--limits-subscriptions=9", file}, "file:", 9},
		{"the last of one flag", nil, []string{"--prefix=a", "-prefix", "b"}, "b", 128},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := mustLoad(t, slices.Concat(enough, test.env), test.args)
			if cfg.Prefix != test.wantPrefix || cfg.Limits.Subscriptions != test.wantSubscriptions {
				t.Errorf("prefix %q, subscriptions %d; want %q, %d",
					cfg.Prefix, cfg.Limits.Subscriptions, test.wantPrefix, test.wantSubscriptions)
			}
		})
	}
}

func TestConfigFileIsNamedByEnvironmentToo(t *testing.T) {
	path := writeFile(t, "redis: redis://there\njwt_secret: "+longSecret+"\n")
	cfg := mustLoad(t, []string{"GATEWAY_CONFIG=" + path}, nil)
	if cfg.Redis != "redis://there" {
		t.Errorf("redis %q", cfg.Redis)
	}
}

func TestEveryKindOfValueIsReadFromEverySource(t *testing.T) {
	file := writeFile(t, `
origins: [https://a.example, "https://*.b.example"]
auth_timeout: 1500ms
drain_delay: 0
pprof: true
limits:
  frame_size: 128KiB
  outbox: 2097152
`)
	sources := map[string][2][]string{
		"file": {nil, {"--config", file}},
		"env": {{"GATEWAY_ORIGINS=https://a.example, https://*.b.example", "GATEWAY_AUTH_TIMEOUT=1500ms",
			"GATEWAY_DRAIN_DELAY=0", "GATEWAY_PPROF=1", "GATEWAY_LIMITS_FRAME_SIZE=128KiB",
			"GATEWAY_LIMITS_OUTBOX=2097152"}, nil},
		"flags": {nil, {"--origins=https://a.example", "--origins", "https://*.b.example",
			"--auth-timeout=1500ms", "--drain-delay", "0", "--pprof", "--limits-frame-size=128KiB",
			"--limits-outbox", "2097152B"}},
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			cfg := mustLoad(t, slices.Concat(enough, source[0]), source[1])
			want := mustLoad(t, enough, nil).Config
			want.Origins = []string{"https://a.example", "https://*.b.example"}
			want.AuthTimeout, want.DrainDelay, want.Pprof = 1500*time.Millisecond, 0, true
			want.Limits.FrameSize, want.Limits.Outbox = 128<<10, 2<<20
			if !reflect.DeepEqual(cfg.Config, want) {
				t.Errorf("got  %+v\nwant %+v", cfg.Config, want)
			}
		})
	}
}

func TestNamesDeriveFromThePathAndAreUnique(t *testing.T) {
	cfg := defaultConfig(false)
	seen := map[string]string{}
	for _, s := range settingsOf(reflect.ValueOf(&cfg).Elem(), "") {
		if s.help == "" {
			t.Errorf("%s has no help", s.path)
		}
		for _, name := range []string{s.env(), s.flag()} {
			if other, ok := seen[name]; ok {
				t.Errorf("%s is the name of both %s and %s", name, other, s.path)
			}
			seen[name] = s.path
		}
	}
	if seen["GATEWAY_LIMITS_FRAME_SIZE"] != "limits.frame_size" || seen["--limits-frame-size"] != "limits.frame_size" {
		t.Errorf("limits.frame_size is not what its names lead to")
	}
}

func TestEveryDefaultCanBeSetAsItIsPrinted(t *testing.T) {
	cfg := defaultConfig(false)
	for _, s := range settingsOf(reflect.ValueOf(&cfg).Elem(), "") {
		if s.fileOnly() || s.isList() {
			continue
		}
		text, want := format(s.value), s.value.Interface()
		if err := setText(s.value, text); err != nil || s.value.Interface() != want {
			t.Errorf("%s: %q was read as %v (%v), want %v", s.path, text, s.value, err, want)
		}
	}
}

func TestMistakesAreNamedAsTheyWereMade(t *testing.T) {
	for _, test := range []struct {
		name      string
		env, args []string
		want      []string
	}{
		{"nothing given", nil, nil, []string{
			"jwt_secret (GATEWAY_JWT_SECRET): is required",
			"redis (--redis, GATEWAY_REDIS): is required, for example redis://127.0.0.1:6379",
		}},
		{"unknown variable", append(enough, "GATEWAY_PREFX=x"), nil, []string{
			"GATEWAY_PREFX: unknown setting (did you mean GATEWAY_PREFIX?)"}},
		{"unknown flag with its value", enough, []string{"--lissten", ":1", "--drain_delay=5s"}, []string{
			"--lissten: unknown flag (did you mean --listen?)",
			"--drain_delay: unknown flag (did you mean --drain-delay?)"}},
		{"bad values", append(enough, "GATEWAY_AUTH_TIMEOUT=5", "GATEWAY_PPROF=maybe"),
			[]string{"--limits-frame-size=64KB", "--limits-subscriptions", "many"}, []string{
				`GATEWAY_AUTH_TIMEOUT: "5" is not a duration such as 500ms, 5s or 2m`,
				`GATEWAY_PPROF: "maybe" is not true or false`,
				`--limits-frame-size: "64KB" is not a size such as 65536, 64KiB or 1MiB`,
				`--limits-subscriptions: "many" is not a whole number`}},
		{"empty where a number is needed", append(enough, "GATEWAY_DRAIN_DELAY="), nil, []string{
			`GATEWAY_DRAIN_DELAY: "" is not a duration such as 500ms, 5s or 2m`}},
		{"no value", enough, []string{"--listen", "--pprof", "--prefix"}, []string{
			"--listen: needs a value", "--prefix: needs a value"}},
		{"secrets and maps have no flag", append(enough, "GATEWAY_CLASSES=x"),
			[]string{"--jwt-secret=x", "--limits-clients", "y"}, []string{
				"GATEWAY_CLASSES: can only be set in the YAML file, as classes",
				"--jwt-secret: a secret is not a flag; set GATEWAY_JWT_SECRET, or jwt_secret in the YAML file",
				"--limits-clients: can only be set in the YAML file, as limits.clients"}},
		{"positional argument", enough, []string{"now", "--", "-"}, []string{
			`"now": unexpected argument`, `"--": unexpected argument`, `"-": unexpected argument`}},
		{"validation, by the name that was used", append(enough, "GATEWAY_LIMITS_BAD_FRAMES=0"),
			[]string{"--log-level=loud", "--log-format=xml"}, []string{
				"GATEWAY_LIMITS_BAD_FRAMES: must be positive",
				`--log-level: "loud" is not debug, info, warn or error`,
				`--log-format: "xml" is not text or json`}},
		{"contradiction with a default", enough, []string{"--drain-timeout=1s"}, []string{
			"drain_delay (--drain-delay, GATEWAY_DRAIN_DELAY): must be shorter than drain_timeout (1s)"}},
		{"development secret in production", []string{enough[0], "GATEWAY_JWT_SECRET=" + developmentSecret}, nil, []string{
			"GATEWAY_JWT_SECRET: is the development secret, which everybody knows; choose your own"}},
		// Finding M5.
		{"short secrets", []string{enough[0], "GATEWAY_JWT_SECRET=" + longSecret[:31], "GATEWAY_API_KEY=" + longSecret[:19]}, nil, []string{
			"GATEWAY_JWT_SECRET: must have at least 32 bytes, for example from openssl rand -hex 32",
			"GATEWAY_API_KEY: must have at least 20 bytes, for example from openssl rand -hex 32"}},
		{"development elsewhere than on loopback", []string{"GATEWAY_ADMIN_LISTEN=0.0.0.0:9090"},
			[]string{"--dev", "--listen=:8080"}, []string{
				`--listen: ":8080" is not a loopback address, and --dev serves no other`,
				`GATEWAY_ADMIN_LISTEN: "0.0.0.0:9090" is not a loopback address, and --dev serves no other`}},
		{"traces", append(enough, "GATEWAY_TRACING_HEADERS=Authorization=Bearer x,secret"), []string{"--tracing-endpoint=collector:4318", "--tracing-sample=2"}, []string{
			`--tracing-endpoint: "collector:4318" is not a URL such as http://127.0.0.1:4318`,
			`--tracing-sample: 2 is not between 0 and 1`,
			`GATEWAY_TRACING_HEADERS: the entry 2 is not name=value`}},
		{"line breaks", append(enough, "GATEWAY_A\nB=x"), nil, []string{"GATEWAY_A B: unknown setting"}},
		{"no such file", enough, []string{"--config=/nowhere/gateway.yaml"}, []string{
			"/nowhere/gateway.yaml: cannot be read: no such file or directory"}},
	} {
		t.Run(test.name, func(t *testing.T) { wantMistakes(t, test.env, test.args, test.want...) })
	}
}

// wantMistakes checks that loading fails with exactly these lines, in any order.
func wantMistakes(t *testing.T, env, args []string, want ...string) {
	t.Helper()
	_, err := loadValid(env, args)
	if err == nil {
		t.Fatalf("no mistake found, want %q", want)
	}
	got := strings.Split(err.Error(), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestVariablesOfServicesAreIgnored: those that Kubernetes sets for Services named
// gateway, gateway-admin and gateway-redis, as a release of the chart has them; and no
// setting is among them (finding U3).
func TestVariablesOfServicesAreIgnored(t *testing.T) {
	env := append(enough[:len(enough):len(enough)], "GATEWAYX=1", "OTHER=1")
	for _, service := range []string{"GATEWAY", "GATEWAY_ADMIN", "GATEWAY_REDIS"} {
		for _, name := range []string{"_SERVICE_HOST", "_SERVICE_PORT", "_SERVICE_PORT_HTTP", "_PORT",
			"_PORT_80_TCP", "_PORT_80_TCP_PROTO", "_PORT_80_TCP_PORT", "_PORT_80_TCP_ADDR"} {
			env = append(env, service+name+"=tcp://10.0.0.1:80")
		}
	}
	cfg := mustLoad(t, env, nil)
	for _, s := range settingsOf(reflect.ValueOf(cfg).Elem(), "") {
		if isServiceVariable(s.env()) {
			t.Errorf("%s could be a variable of a Service", s.env())
		}
	}
	wantMistakes(t, append(env, "GATEWAY_SERVICE=x", "GATEWAY_PORTS=x"), nil,
		"GATEWAY_SERVICE: unknown setting", "GATEWAY_PORTS: unknown setting")
}

// TestPasswordsOfRedisAreNoFlags: they may be in the file and in the environment
// (finding L3).
func TestPasswordsOfRedisAreNoFlags(t *testing.T) {
	for _, url := range []string{"redis://:hunter2@h", "redis://u:hunter2@h", "redis://h?password=hunter2",
		"redis+sentinel://h/m?sentinel_password=hunter2", "redis+cluster://u:hunter2@h"} {
		wantMistakes(t, enough, []string{"--redis=" + url}, "--redis: a password is not for a flag, "+
			"which every user of a host can read; set GATEWAY_REDIS, or redis in the YAML file")
		mustLoad(t, []string{enough[1], "GATEWAY_REDIS=" + url}, nil)
		mustLoad(t, enough[1:], []string{"--config", writeFile(t, "redis: "+url+"\n")})
	}
	mustLoad(t, enough, []string{"--redis=redis://user@h"})
}

func TestDevelopmentModeIsAChangeOfDefaults(t *testing.T) {
	cfg := mustLoad(t, nil, []string{"--dev"})
	star, user, broadcast := cfg.Classes["*"], cfg.Classes["user"], cfg.Classes["broadcast"]
	if star.Subscribe != gateway.AccessAny || star.Publish != gateway.AccessAny ||
		user.Publish != gateway.AccessAny || broadcast.Publish != gateway.AccessNone {
		t.Errorf("classes %+v", cfg.Classes)
	}
	if cfg.Listen != "127.0.0.1:8080" || cfg.AdminListen != "127.0.0.1:9090" || cfg.APIKey != "dev" {
		t.Errorf("listen %q, admin_listen %q, api_key %q", cfg.Listen, cfg.AdminListen, cfg.APIKey)
	}
	cfg = mustLoad(t, []string{"GATEWAY_DEV=true", "GATEWAY_JWT_SECRET=mine"}, []string{"--listen=localhost:1"})
	if cfg.JWTSecret != "mine" || cfg.Listen != "localhost:1" {
		t.Errorf("what was set lost against a development default")
	}
}
