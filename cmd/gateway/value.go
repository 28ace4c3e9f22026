package main

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"wssgateway/gateway"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[gateway.Size]()
)

// setText parses text into v, which is of one of the kinds a setting can have.
// The error says what the text should have been, not what it was for.
func setText(v reflect.Value, text string) error {
	switch {
	case v.Type() == durationType:
		return setDuration(v, text)
	case v.Type() == sizeType:
		return setSize(v, text)
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		return setBool(v, text)
	case reflect.Int, reflect.Int32, reflect.Int64:
		return setInt(v, text)
	case reflect.Float64:
		return setFloat(v, text)
	case reflect.Slice:
		v.Set(reflect.ValueOf(splitList(text)))
	default:
		return fmt.Errorf("cannot be set as text (%s)", v.Type())
	}
	return nil
}

func setDuration(v reflect.Value, text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%s is not a duration such as 500ms, 5s or 2m", quote(text))
	}
	v.SetInt(int64(d))
	return nil
}

func setBool(v reflect.Value, text string) error {
	b, err := strconv.ParseBool(text)
	if err != nil {
		return fmt.Errorf("%s is not true or false", quote(text))
	}
	v.SetBool(b)
	return nil
}

func setInt(v reflect.Value, text string) error {
	n, err := strconv.ParseInt(text, 10, v.Type().Bits())
	if err != nil {
		return fmt.Errorf("%s is not a whole number", quote(text))
	}
	v.SetInt(n)
	return nil
}

func setFloat(v reflect.Value, text string) error {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("%s is not a number", quote(text))
	}
	v.SetFloat(f)
	return nil
}

// sizeUnits are powers of 1024 only: KB would mean 1000 to some.
var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}, {"", 1}}

func setSize(v reflect.Value, text string) error {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/unit.bytes {
			break
		}
		v.SetInt(n * unit.bytes)
		return nil
	}
	return fmt.Errorf("%s is not a size such as 65536, 64KiB or 1MiB", quote(text))
}

// formatSize writes a size as an operator would: in the largest unit that
// divides it.
func formatSize(size gateway.Size) string {
	for _, unit := range []int{2, 1, 0} {
		if n := int64(size); n >= sizeUnits[unit].bytes && n%sizeUnits[unit].bytes == 0 {
			return strconv.FormatInt(n/sizeUnits[unit].bytes, 10) + sizeUnits[unit].suffix
		}
	}
	return strconv.FormatInt(int64(size), 10)
}

// splitList splits a list as environment variables and flags have it.
func splitList(text string) []string {
	var list []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// quote quotes what an operator wrote for a message of one readable line.
func quote(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}
