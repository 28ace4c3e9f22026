package main

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

const envPrefix = "GATEWAY_"

// mistakes is all that is wrong with a configuration, each mistake one line
// that names the setting as the operator wrote it. As an error it is those
// lines.
type mistakes []string

func (m mistakes) Error() string { return strings.Join(m, "\n") }

// assignment is a value somebody gave to a setting, not looked at yet.
type assignment struct {
	setting
	origin string // the name they used
	text   string
}

// loader brings a configuration together from defaults, file, environment and
// flags, and collects what is wrong on the way.
type loader struct {
	cfg      config
	settings []setting // of cfg
	options  []setting // of the command: flags only
	wrong    mistakes
	// failed has the paths of settings whose value was no good. What validation
	// says of the value that stands there instead is noise.
	failed map[string]bool
}

func newLoader(options any) *loader {
	l := &loader{failed: map[string]bool{}}
	l.settings = settingsOf(reflect.ValueOf(&l.cfg).Elem(), "")
	if options != nil {
		l.options = settingsOf(reflect.ValueOf(options).Elem(), "")
	}
	return l
}

// load reads the configuration that the environment and the arguments of a
// command amount to. options points to a struct of the command's own flags,
// tagged like a configuration, or is nil. Validation is left to the caller: not
// every command needs everything.
func load(env, args []string, options any) (*config, error) {
	l := newLoader(options)
	l.load(env, args)
	return l.result()
}

// loadValid is load followed by validation, with the mistakes of both at once.
func loadValid(env, args []string) (*config, error) {
	l := newLoader(nil)
	if l.load(env, args) {
		l.validate()
	}
	return l.result()
}

func (l *loader) result() (*config, error) {
	if len(l.wrong) > 0 {
		return nil, l.wrong
	}
	return &l.cfg, nil
}

// load returns false if the file could not be read: then nothing can be said
// about what is missing.
func (l *loader) load(env, args []string) bool {
	fromEnv, fromFlags := l.environment(env), l.flags(args)
	given := slices.Concat(fromEnv, fromFlags)
	dev, _ := strconv.ParseBool(last(given, "dev"))
	l.cfg = defaultConfig(dev)
	l.cfg.origins = origins{}
	read := true
	if file := last(given, "config"); file != "" {
		read = l.file(file)
	}
	for _, a := range given {
		l.assign(a)
	}
	return read
}

// last returns what finally wins for a setting that decides how the others are
// read.
func last(given []assignment, path string) string {
	for _, a := range slices.Backward(given) {
		if a.path == path {
			return a.text
		}
	}
	return ""
}

func (l *loader) assign(a assignment) {
	l.set(a.path, a.origin, setText(a.value, a.text))
}

// set notes that path was set at origin, and how that went.
func (l *loader) set(path, origin string, err error) {
	l.cfg.origins[path] = origin
	l.failed[path] = err != nil
	if err != nil {
		l.mistake(origin, "%v", err)
	}
}

func (l *loader) mistake(origin, format string, args ...any) {
	l.wrong = append(l.wrong, oneLine(origin+": "+fmt.Sprintf(format, args...)))
}

// oneLine keeps names that contain line breaks from looking like more mistakes.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// validate adds what validation finds to the mistakes, each by the name under
// which the setting was set, or by all its names if it was not set at all.
func (l *loader) validate() {
	for _, err := range unjoin(l.cfg.validateAll()) {
		path, message, _ := strings.Cut(err.Error(), ": ")
		if !l.failed[path] {
			l.mistake(l.nameOf(path), "%s", message)
		}
	}
}

func (l *loader) nameOf(path string) string {
	if origin, ok := l.cfg.origins.of(path); ok {
		return origin
	}
	i := slices.IndexFunc(l.settings, func(s setting) bool { return s.path == path })
	if i < 0 || l.settings[i].fileOnly() {
		return path
	}
	s := l.settings[i]
	if s.secret {
		return fmt.Sprintf("%s (%s)", path, s.env())
	}
	return fmt.Sprintf("%s (%s, %s)", path, s.flag(), s.env())
}

// unjoin returns the errors that were joined to err, however deep.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, unjoin(err)...)
	}
	return all
}
