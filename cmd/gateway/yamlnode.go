package main

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/goccy/go-yaml/ast"
)

// setNode sets v from a YAML value of the type that v asks for. YAML's own
// conversions stay out of it: a secret 012345 without quotes is a number to
// some readers and an octal one to others, so it is a mistake.
func setNode(v reflect.Value, node ast.Node) error {
	if v.Kind() == reflect.Slice {
		return setSequence(v, node)
	}
	text, kind := scalarText(node)
	if kind == scalarNone {
		return fmt.Errorf("must be %s, not %s", expected(v), describe(node))
	}
	if !accepts(v, kind) {
		hint := ""
		if v.Kind() == reflect.String {
			hint = "; put it in quotes"
		}
		return fmt.Errorf("must be %s, not %s%s", expected(v), describe(node), hint)
	}
	return setText(v, text)
}

func setSequence(v reflect.Value, node ast.Node) error {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		return fmt.Errorf("must be a list, not %s", describe(node))
	}
	list := []string{}
	for _, item := range sequence.Values {
		text, kind := scalarText(item)
		if kind != scalarString {
			return fmt.Errorf("must be a list of texts; there is %s in it", describe(item))
		}
		if text == "" {
			return errors.New("has an empty entry")
		}
		list = append(list, text)
	}
	v.Set(reflect.ValueOf(list))
	return nil
}

// scalar is a kind of single value in YAML.
type scalar int

const (
	scalarNone scalar = iota // not a single value
	scalarString
	scalarInt
	scalarFloat
	scalarBool
)

// scalarText returns a single value as it is written in the file.
func scalarText(node ast.Node) (string, scalar) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, scalarString
	case *ast.LiteralNode:
		if n.Value != nil {
			return n.Value.Value, scalarString
		}
	case *ast.IntegerNode:
		return n.Token.Value, scalarInt
	case *ast.FloatNode:
		return n.Token.Value, scalarFloat
	case *ast.BoolNode:
		return n.Token.Value, scalarBool
	}
	return "", scalarNone
}

// accepts says whether a YAML scalar of this kind can be a value of v.
func accepts(v reflect.Value, kind scalar) bool {
	switch {
	case v.Type() == sizeType:
		return kind == scalarInt || kind == scalarString
	case v.Type() == durationType: // an integer lacks its unit, unless it is 0
		return kind == scalarInt || kind == scalarString
	}
	switch v.Kind() {
	case reflect.String:
		return kind == scalarString
	case reflect.Bool:
		return kind == scalarBool
	case reflect.Float64:
		return kind == scalarInt || kind == scalarFloat
	default:
		return kind == scalarInt
	}
}

// expected names what v takes.
func expected(v reflect.Value) string {
	switch {
	case v.Type() == sizeType:
		return "a size such as 65536, 64KiB or 1MiB"
	case v.Type() == durationType:
		return "a duration such as 500ms, 5s or 2m"
	}
	switch v.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	default:
		return "a whole number"
	}
}

// describe names what stands in the file, never what it says.
func describe(node ast.Node) string {
	switch node.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode, nil:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor or alias"
	case *ast.TagNode:
		return "a tag"
	default:
		return "something else"
	}
}

// mappingPairs returns the pairs of a mapping; none of a null.
func mappingPairs(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	case *ast.NullNode, nil:
		return nil, true
	default:
		return nil, false
	}
}

// keyText returns the key of a mapping as it is written.
func keyText(key ast.MapKeyNode) (string, bool) {
	text, kind := scalarText(key)
	return text, kind != scalarNone
}
