package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"wssgateway/gateway"
)

// maxFileSize is some hundred times a long configuration. The parser's time
// grows with the square of the nesting, which this bounds as well.
const maxFileSize = 64 << 10

// mapBase names, for each map, the entry that a new one starts from.
var mapBase = map[string]string{
	"classes":        gateway.ClassDefault,
	"limits.clients": "web",
}

// file reads settings from the YAML file at path; false if it is none. It walks
// the syntax tree by itself rather than decoding: a decoder knows no lines once
// it is done, and would say what is wrong with Go's types.
func (l *loader) file(path string) bool {
	text, err := readFile(path)
	if err != nil {
		l.mistake(path, "cannot be read: %v", err)
		return false
	}
	root, err := parseYAML(text)
	if err != nil {
		l.mistake(path, "%v", err)
		return false
	}
	l.tree(root, path)
	return true
}

// tree sets what a file's root says, which is nil for an empty one.
func (l *loader) tree(root ast.Node, name string) {
	f := yamlFile{loader: l, name: name}
	f.structure(root, reflect.ValueOf(&l.cfg).Elem(), "")
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if len(text) > maxFileSize {
		return nil, fmt.Errorf("it is larger than %d KiB", maxFileSize>>10)
	}
	return text, nil
}

// withoutPath takes off the path that the line begins with anyway.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// parseYAML returns the root of the one document in text, nil if it is empty.
func parseYAML(text []byte) (root ast.Node, err error) {
	defer func() {
		// The parser has panicked on malformed input before; an operator's typo
		// must read like one.
		if recover() != nil {
			root, err = nil, errors.New("is not YAML")
		}
	}()
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(err)
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case root != nil:
			return nil, errors.New("has more than one document")
		default:
			root = doc.Body
		}
	}
	return root, nil
}

// syntaxError reduces the parser's error to its message and line: the excerpt
// it comes with could show a secret.
func syntaxError(err error) error {
	detail, ok := errors.AsType[yaml.Error](err)
	if !ok || detail.GetToken() == nil || detail.GetToken().Position == nil {
		return errors.New("is not YAML")
	}
	// The commonest mistake of all, invisible if it is shown as it is.
	message := strings.ReplaceAll(detail.GetMessage(), "character '\t'", "a tab")
	return fmt.Errorf("line %d: is not YAML: %s", detail.GetToken().Position.Line, oneLine(message))
}

// yamlFile is one pass over a file's syntax tree.
type yamlFile struct {
	*loader
	name string
}

// at names a setting as the operator sees it: the file, the line, the path.
func (f yamlFile) at(node ast.Node, path string) string {
	line := 0
	if token := node.GetToken(); token != nil && token.Position != nil {
		line = token.Position.Line
	}
	if path == "" {
		return fmt.Sprintf("%s:%d", f.name, line)
	}
	return fmt.Sprintf("%s:%d: %s", f.name, line, path)
}

// entry is one key of a mapping with its value.
type entry struct {
	key         string
	path        string
	origin      string
	node, value ast.Node
}

// entries returns the keys of a mapping, each once; a null is an empty mapping,
// which is what remains of one whose keys are commented out.
func (f yamlFile) entries(node ast.Node, path string) []entry {
	pairs, ok := mappingPairs(node)
	if !ok {
		f.mistake(f.at(node, path), "must be a mapping, not %s", describe(node))
		return nil
	}
	var all []entry
	for _, pair := range pairs {
		key, ok := keyText(pair.Key)
		if !ok {
			f.mistake(f.at(pair.Key, path), "%s is not supported as a key here", describe(pair.Key))
			continue
		}
		e := entry{key: key, path: join(path, key), node: pair.Key, value: pair.Value}
		e.origin = f.at(pair.Key, e.path)
		if slices.ContainsFunc(all, func(other entry) bool { return other.key == key }) {
			f.mistake(e.origin, "is there twice")
			continue
		}
		all = append(all, e)
	}
	return all
}

// structure sets the fields of v from a mapping.
func (f yamlFile) structure(node ast.Node, v reflect.Value, path string) {
	fields := fieldsOf(v)
	for _, e := range f.entries(node, path) {
		field, ok := fields[e.key]
		switch {
		case !ok:
			f.unknown(e, fields, path)
		case field.Kind() == reflect.Struct:
			f.cfg.origins[e.path] = e.origin
			f.structure(e.value, field, e.path)
		case field.Kind() == reflect.Map:
			f.cfg.origins[e.path] = e.origin
			f.mapping(e, field)
		default:
			f.set(e.path, e.origin, setNode(field, e.value))
		}
	}
}

func (f yamlFile) unknown(e entry, fields map[string]reflect.Value, path string) {
	for _, s := range f.settings {
		if s.path == e.path {
			f.mistake(e.origin, "cannot be set here, only with %s or %s", s.flag(), s.env())
			return
		}
	}
	var names []string
	for name := range fields {
		names = append(names, join(path, name))
	}
	f.mistake(e.origin, "unknown setting%s", suggest(join(path, ""), e.path, names))
}

// mapping sets the entries of a map. Each starts from what it was before or,
// being new, from the map's base, which therefore comes first wherever it
// stands.
func (f yamlFile) mapping(in entry, m reflect.Value) {
	base := mapBase[in.path]
	entries := f.entries(in.value, in.path)
	slices.SortStableFunc(entries, func(a, b entry) int {
		switch {
		case a.key == base && b.key != base:
			return -1
		case b.key == base && a.key != base:
			return 1
		}
		return 0
	})
	for _, e := range entries {
		start := m.MapIndex(reflect.ValueOf(e.key))
		if !start.IsValid() {
			start = m.MapIndex(reflect.ValueOf(base))
		}
		value := reflect.New(m.Type().Elem()).Elem()
		if start.IsValid() {
			value.Set(start)
		}
		f.cfg.origins[e.path] = e.origin
		f.structure(e.value, value, e.path)
		m.SetMapIndex(reflect.ValueOf(e.key), value)
	}
}

// fieldsOf returns the fields of v that the file can set, by their names in it.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		tag, tagged := field.Tag.Lookup("config")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case field.Anonymous:
			for name, value := range fieldsOf(v.Field(i)) {
				fields[name] = value
			}
		case tagged && options != "nofile":
			fields[name] = v.Field(i)
		}
	}
	return fields
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
