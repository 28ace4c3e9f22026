package main

import (
	"slices"
	"strings"
)

// environment collects what GATEWAY_ variables set. One that sets nothing is a
// mistake, unless Kubernetes made it.
func (l *loader) environment(env []string) []assignment {
	known := map[string]setting{}
	var names []string
	for _, s := range l.settings {
		known[s.env()] = s
		names = append(names, s.env())
	}
	var given []assignment
	for _, variable := range slices.Sorted(slices.Values(env)) {
		name, text, _ := strings.Cut(variable, "=")
		s, ok := known[name]
		switch {
		case !strings.HasPrefix(name, envPrefix):
		case !ok && isServiceVariable(name):
		case !ok:
			l.mistake(name, "unknown setting%s", suggest(envPrefix, name, names))
		case s.fileOnly():
			l.mistake(name, "can only be set in the YAML file, as %s", s.path)
		default:
			given = append(given, assignment{s, name, text})
		}
	}
	return given
}

// isServiceVariable says whether Kubernetes sets a variable of such a name in every pod
// of a namespace, for a Service named gateway, or gateway-admin, or gateway-redis.
// A setting of the same name would be a setting.
func isServiceVariable(name string) bool {
	return strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_") ||
		strings.HasSuffix(name, "_SERVICE_HOST") // _SERVICE_PORT is among the others
}

// flags collects what the arguments set. It is not package flag, which stops at
// the first mistake; what it accepts is the same: --name value, --name=value,
// one dash or two, and a bool alone.
func (l *loader) flags(args []string) []assignment {
	var given []assignment
	for len(args) > 0 {
		name, text, hasText := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		if !strings.HasPrefix(args[0], "-") || name == "" {
			l.mistake(quote(args[0]), "unexpected argument")
			args = args[1:]
			continue
		}
		name, args = "--"+name, args[1:]
		s, ok := l.flag(name)
		switch {
		case hasText:
		case ok && s.isBool():
			text, hasText = "true", true
		case len(args) > 0 && !strings.HasPrefix(args[0], "--"):
			// Of an unknown flag too: one mistake, not two.
			text, hasText, args = args[0], true, args[1:]
		}
		if ok && !hasText {
			l.mistake(name, "needs a value")
		} else if ok && s.path == "redis" && hasPassword(text) {
			l.mistake(name, "a password is not for a flag, which every user of a host can read; set %s, or %s in the YAML file", s.env(), s.path)
		} else if ok {
			given = addFlag(given, assignment{s, name, text})
		}
	}
	return given
}

// flag returns the setting that a flag sets, or makes a mistake of it.
func (l *loader) flag(name string) (setting, bool) {
	var names []string
	for _, s := range slices.Concat(l.options, l.settings) {
		switch {
		case s.flag() != name:
			if !s.secret && !s.fileOnly() {
				names = append(names, s.flag())
			}
		case s.secret:
			l.mistake(name, "a secret is not a flag; set %s, or %s in the YAML file", s.env(), s.path)
			return setting{}, false
		case s.fileOnly():
			l.mistake(name, "can only be set in the YAML file, as %s", s.path)
			return setting{}, false
		default:
			return s, true
		}
	}
	l.mistake(name, "unknown flag%s", suggest("--", name, names))
	return setting{}, false
}

// addFlag adds what a flag gave: a list given again goes on, all else is
// replaced.
func addFlag(given []assignment, a assignment) []assignment {
	i := slices.IndexFunc(given, func(b assignment) bool { return b.path == a.path })
	if i < 0 {
		return append(given, a)
	}
	if a.isList() {
		a.text = given[i].text + "," + a.text
	}
	given[i] = a
	return given
}
