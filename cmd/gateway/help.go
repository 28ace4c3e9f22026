package main

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"wssgateway/gateway"
)

// helpGroups is the order in which --help goes through the settings. A nested
// struct's settings go by its name; what is in no group is listed at the end.
var helpGroups = []struct {
	title string
	paths []string
}{
	{"Process", []string{"config", "dev", "log_level", "log_format", "pprof"}},
	{"Addresses", []string{"listen", "admin_listen", "origins", "trusted_proxies"}},
	{"Redis and node", []string{"redis", "prefix", "node_name", "lease", "heartbeat", "events"}},
	{"Tokens and keys", []string{"jwt_secret", "jwt_jwks_url", "issuer", "audience", "api_key"}},
	{"Connections and sessions", []string{
		"handshake_timeout", "auth_timeout", "resume_window", "max_age", "compression",
		"drain_delay", "drain_timeout",
	}},
	{"Calls", []string{"calls"}},
	{"Traces", []string{"tracing"}},
	{"Limits", []string{"limits"}},
}

func serveUsage(w io.Writer) {
	fmt.Fprint(w, "Usage: gateway [command] [flags]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-12s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, `
Each command explains itself with --help. What follows are the settings of a
node. A flag wins over its environment variable, that over the YAML file, and
that over the default. In the file a name is written without dashes: drain_delay,
and frame_size below limits.
`)
	writeSettings(w)
}

// writeSettings lists every setting there is, with its names and its default.
func writeSettings(w io.Writer) {
	cfg := defaultConfig(false)
	cfg.NodeName = "" // this host's would be taken for a fixed one
	all := settingsOf(reflect.ValueOf(&cfg).Elem(), "")
	groups := make([][]setting, len(helpGroups)+1)
	var maps []setting
	for _, s := range all {
		if s.fileOnly() {
			maps = append(maps, s)
			continue
		}
		i := helpGroup(s.path)
		groups[i] = append(groups[i], s)
	}
	for i, group := range groups {
		title := "Other"
		if i < len(helpGroups) {
			title = helpGroups[i].title
		}
		writeGroup(w, title, i, group)
	}
	for _, s := range maps {
		writeMap(w, s)
	}
}

func helpGroup(path string) int {
	i := slices.IndexFunc(helpGroups, func(g struct {
		title string
		paths []string
	}) bool {
		top, _, _ := strings.Cut(path, ".")
		return slices.Contains(g.paths, top)
	})
	if i < 0 {
		return len(helpGroups)
	}
	return i
}

func writeGroup(w io.Writer, title string, index int, group []setting) {
	if len(group) == 0 {
		return
	}
	if index < len(helpGroups) {
		order := helpGroups[index].paths
		slices.SortStableFunc(group, func(a, b setting) int {
			return cmp.Compare(slices.Index(order, a.path), slices.Index(order, b.path))
		})
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, s := range group {
		fmt.Fprintf(w, "  %s\n      %s%s\n", names(s), s.help, defaultNote(s.value))
	}
}

// names are the ways to set s from outside the file, the file's own where there
// is no flag.
func names(s setting) string {
	if s.secret {
		return fmt.Sprintf("%s in the file, %s", s.path, s.env())
	}
	flag := s.flag()
	if !s.isBool() {
		flag += " " + placeholder(s.value)
	}
	return fmt.Sprintf("%s, %s", flag, s.env())
}

func placeholder(v reflect.Value) string {
	switch {
	case v.Type() == durationType:
		return "DURATION"
	case v.Type() == sizeType:
		return "SIZE"
	case v.Kind() == reflect.Slice:
		return "A,B,…"
	case v.Kind() == reflect.String:
		return "TEXT"
	default:
		return "N"
	}
}

func defaultNote(v reflect.Value) string {
	if v.IsZero() {
		return ""
	}
	return fmt.Sprintf(" (default %s)", format(v))
}

// format writes a value as it would be set.
func format(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case time.Duration:
		return formatDuration(value)
	case gateway.Size:
		return formatSize(value)
	default:
		return fmt.Sprint(value)
	}
}

// formatDuration writes 5m rather than 5m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// writeMap lists what an entry of a map has, with the values of the entry that
// new ones start from.
func writeMap(w io.Writer, s setting) {
	fmt.Fprintf(w, "\n%s.NAME (YAML file only): %s\n", s.path, s.help)
	base := s.value.MapIndex(reflect.ValueOf(mapBase[s.path]))
	entry := reflect.New(s.value.Type().Elem()).Elem()
	if base.IsValid() {
		entry.Set(base)
	}
	for _, field := range settingsOf(entry, "") {
		fmt.Fprintf(w, "  %s\n      %s (default %s)\n", field.path, field.help, format(field.value))
	}
}

// writeOptions lists the flags of a command that has its own.
func writeOptions(w io.Writer, options any) {
	fmt.Fprint(w, "\nFlags:\n")
	for _, s := range settingsOf(reflect.ValueOf(options).Elem(), "") {
		flag := s.flag()
		if !s.isBool() {
			flag += " " + placeholder(s.value)
		}
		fmt.Fprintf(w, "  %s\n      %s%s\n", flag, s.help, defaultNote(s.value))
	}
	fmt.Fprint(w, "\nThe settings of a node are flags here too (gateway help).\n")
}
