package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// setting is one thing that can be set, with the place its value goes to. Its
// three names all come from the one path in the struct tags.
type setting struct {
	path   string // limits.frame_size: the name in the YAML file
	help   string
	value  reflect.Value
	secret bool // has no flag: arguments can be read by every user of a host
	nofile bool // has no place in the YAML file
}

// env is the name of the environment variable: GATEWAY_LIMITS_FRAME_SIZE.
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.path, ".", "_"))
}

// flag is the name of the flag: --limits-frame-size.
func (s setting) flag() string {
	return "--" + strings.NewReplacer(".", "-", "_", "-").Replace(s.path)
}

// fileOnly says whether the setting is a map, which only the file can express.
func (s setting) fileOnly() bool { return s.value.Kind() == reflect.Map }

func (s setting) isBool() bool { return s.value.Kind() == reflect.Bool }
func (s setting) isList() bool { return s.value.Kind() == reflect.Slice }

// settingsOf lists the settings declared in the struct v, which must be
// addressable, in the order of declaration; a nested struct's come in its place.
func settingsOf(v reflect.Value, prefix string) []setting {
	var all []setting
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		tag, tagged := field.Tag.Lookup("config")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case field.Anonymous:
			all = append(all, settingsOf(value, prefix)...)
		case !tagged:
		case value.Kind() == reflect.Struct:
			all = append(all, settingsOf(value, prefix+name+".")...)
		default:
			all = append(all, setting{
				path:   prefix + name,
				help:   field.Tag.Get("help"),
				value:  value,
				secret: options == "secret",
				nofile: options == "nofile",
			})
		}
	}
	return all
}

// origins maps the path of a setting to where it was set, as its operator
// wrote it: "gateway.yaml:3: limits.frame_size", "GATEWAY_LISTEN", "--listen".
type origins map[string]string

// of returns where path was set, or where something around it was: a class of
// which only the history was given is still the one that was written there.
func (o origins) of(path string) (origin string, ok bool) {
	for {
		if origin, ok = o[path]; ok {
			return origin, true
		}
		dot := strings.LastIndexByte(path, '.')
		if dot < 0 {
			return "", false
		}
		path = path[:dot]
	}
}

// suggest returns a hint at the known name closest to a mistyped one, if any
// is close enough to be what was meant. All of them begin with prefix.
func suggest(prefix, name string, known []string) string {
	name = strings.TrimPrefix(name, prefix)
	if len(name) > 64 { // no name is that long, and the distance costs its square
		return ""
	}
	best, least := "", 1+len(name)/4
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(name, strings.TrimPrefix(k, prefix)); d <= least && (best == "" || d < least) {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is the number of bytes to insert, delete or replace to make b of a
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
