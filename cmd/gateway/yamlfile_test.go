package main

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"wssgateway/gateway"
)

func TestEntriesOfMapsKeepTheDefaultsTheyDoNotName(t *testing.T) {
	// The base of new entries is last in the file: where it stands must not matter.
	cfg := mustLoad(t, enough, []string{"--config", writeFile(t, `
classes:
  room: {history: {size: 10}}
  user: {history: {ttl: 1h}}
  bare:
  "*": {subscribe: any, history: {ttl: 1m}}
limits:
  clients:
    kiosk: {connections: 1}
    mobile: {timeout: 90s}
    web: {timeout: 20s}
`)})
	for name, want := range map[string]gateway.Class{
		"*":    {History: gateway.History{Size: 100, TTL: time.Minute}, Subscribe: "any", Publish: "token"},
		"room": {History: gateway.History{Size: 10, TTL: time.Minute}, Subscribe: "any", Publish: "token"},
		"bare": {History: gateway.History{Size: 100, TTL: time.Minute}, Subscribe: "any", Publish: "token"},
		"user": {History: gateway.History{Size: 1000, TTL: time.Hour}, Subscribe: "token", Publish: "token"},
	} {
		if got := cfg.Classes[name]; got != want {
			t.Errorf("class %s: %+v, want %+v", name, got, want)
		}
	}
	for name, want := range map[string]gateway.ClientLimits{
		"web":    {Connections: 50, Timeout: 20 * time.Second},
		"kiosk":  {Connections: 1, Timeout: 20 * time.Second},
		"mobile": {Connections: 20, Timeout: 90 * time.Second},
	} {
		if got := cfg.Limits.Clients[name]; got != want {
			t.Errorf("client %s: %+v, want %+v", name, got, want)
		}
	}
}

func TestEmptyFilesSetNothing(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "limits:\nclasses:\n"} {
		mustLoad(t, enough, []string{"--config", writeFile(t, text)})
	}
}

func TestMistakesInFilesHaveTheirLine(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string // without the file's path
	}{
		{"unknown keys, at every depth", "lisen: :1\nlimits:\n  frames: 1\n  clients:\n    web:\n      timout: 5s\n" +
			"classes:\n  room:\n    history:\n      sise: 1\ndev: true\n", []string{
			"1: lisen: unknown setting (did you mean listen?)",
			"3: limits.frames: unknown setting",
			"6: limits.clients.web.timout: unknown setting (did you mean limits.clients.web.timeout?)",
			"10: classes.room.history.sise: unknown setting (did you mean classes.room.history.size?)",
			"11: dev: cannot be set here, only with --dev or GATEWAY_DEV"}},
		{"wrong types", "listen: 8080\nprefix: [a]\npprof: 'yes'\norigins: https://a\nauth_timeout: {s: 5}\n" +
			"limits: 5\nissuer:\nclasses: [room]\ndrain_delay: 5\n", []string{
			"1: listen: must be text, not a number; put it in quotes",
			"2: prefix: must be text, not a list",
			"3: pprof: must be true or false, not text",
			"4: origins: must be a list, not text",
			"5: auth_timeout: must be a duration such as 500ms, 5s or 2m, not a mapping",
			"6: limits: must be a mapping, not a number",
			"7: issuer: must be text, not nothing",
			"8: classes: must be a mapping, not a list",
			`9: drain_delay: "5" is not a duration such as 500ms, 5s or 2m`}},
		{"list entries", "origins: [a, 1]\ntrusted_proxies: ['']\n", []string{
			"1: origins: must be a list of texts; there is a number in it",
			"2: trusted_proxies: has an empty entry"}},
		{"a key twice", "prefix: a\nprefix: b\n", []string{"2: prefix: is there twice"}},
		{"a secret that is a number is not repeated", "jwt_secret: 1234567\n", []string{
			"1: jwt_secret: must be text, not a number; put it in quotes"}},
		{"validation", "classes:\n  room:\n    publish: all\n    history: {size: -1}\nlimits:\n  bad_frames: 0\n", []string{
			`3: classes.room.publish: "all" is not none, token or any`,
			"4: classes.room.history.size: must be 0 to 1000000",
			"6: limits.bad_frames: must be positive"}},
		{"validation of what is around", "classes:\n  'a b': {}\n  room:42: {}\n", []string{
			"2: classes.a b: is not the class of any channel",
			"3: classes.room:42: is not the class of any channel"}},
		{"anchors", "prefix: &a x\nissuer: *a\naudience: !!str 5\n", []string{
			"1: prefix: must be text, not an anchor or alias",
			"2: issuer: must be text, not an anchor or alias",
			"3: audience: must be text, not a tag"}},
		{"not a mapping", "- a\n", []string{"1: must be a mapping, not a list"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := writeFile(t, test.text)
			var want []string
			for _, line := range test.want {
				want = append(want, path+":"+line)
			}
			env := enough
			if strings.Contains(test.text, "jwt_secret") {
				env = enough[:1]
			}
			wantMistakes(t, env, []string{"--config", path}, want...)
		})
	}
}

func TestFilesThatAreNotOneDocument(t *testing.T) {
	for text, want := range map[string]string{
		"a: 'b":                         "line 1: is not YAML: could not find end character of single-quoted text",
		"limits:\n\tbad_frames: 1":      "line 2: is not YAML: found a tab that cannot start any token",
		"prefix: a\n---\nprefix: b\n":   "has more than one document",
		strings.Repeat("# long\n", 1e4): "cannot be read: it is larger than 64 KiB",
	} {
		path := writeFile(t, text)
		// Not a word about the settings that may have stood in it.
		wantMistakes(t, nil, []string{"--config", path}, path+": "+want)
	}
}

func TestAnUnreadableFileIsOneMistake(t *testing.T) {
	dir := t.TempDir()
	wantMistakes(t, nil, []string{"--config", dir}, dir+": cannot be read: is a directory")
}

// FuzzFile feeds the loader files: whatever they hold, there is a configuration
// or a list of readable one-line mistakes, and a secret is in none of them.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"listen: :8080\nlimits: {frame_size: 64KiB, clients: {web: {timeout: 5s}}}\n",
		"classes: {'*': {history: {size: 0}}, room: }\norigins: [a, b]\n",
		"a: &a [*a]\n<<: *a\n", "? [x]\n: y\n", "jwt_secret: |\n  Fuzz-Secret\n", "- \n- {", "!!map {}\n",
		"\xff\xfe", "{a: b, a: c}", "%YAML 1.2\n---\nx: 1\n...\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		root, err := parseYAML(text)
		if err != nil {
			checkMistake(t, err.Error())
			return
		}
		l := newLoader(nil)
		l.cfg = defaultConfig(false)
		l.cfg.origins = origins{}
		l.tree(root, "gateway.yaml")
		l.validate()
		for _, mistake := range l.wrong {
			checkMistake(t, mistake)
		}
	})
}

func checkMistake(t *testing.T, text string) {
	t.Helper()
	if text == "" || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("not a readable line: %q", text)
	}
}
