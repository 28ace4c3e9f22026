package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Figures are what gateway-bench has found, by name.
type Figures map[string]float64

// ReadRoll reads what `gateway-bench roll --json -` says on both its outputs, to the
// end, and calls connected when all clients are. It returns all it said, too.
func ReadRoll(r io.Reader, connected func()) (f Figures, said string, err error) {
	var all strings.Builder
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for told := false; lines.Scan(); {
		fmt.Fprintln(&all, lines.Text())
		if !told && strings.Contains(lines.Text(), "roll the nodes now") {
			told = true
			connected()
		}
		if strings.HasPrefix(lines.Text(), "{") {
			f, err = readFigures(lines.Bytes())
		}
	}
	if f == nil && err == nil {
		err = errors.New("gateway-bench gave no report")
	}
	return f, all.String(), errors.Join(err, lines.Err())
}

func readFigures(line []byte) (Figures, error) {
	var report struct {
		Figures []struct {
			Name  string
			Value float64
		}
	}
	if err := json.Unmarshal(line, &report); err != nil {
		return nil, err
	}
	f := make(Figures)
	for _, figure := range report.Figures {
		f[figure.Name] = figure.Value
	}
	return f, nil
}

// Wrong returns the names of those that must be nothing and are not.
func (f Figures) Wrong() []string {
	var wrong []string
	for _, name := range []string{"lost", "repeated", "out of order", "gaps told", "connections dropped"} {
		if n, ok := f[name]; !ok || n > 0 {
			wrong = append(wrong, name)
		}
	}
	if f["published"] == 0 || f["received"] < f["published"] {
		wrong = append(wrong, "nothing was measured")
	}
	return wrong
}

func (f Figures) String() string {
	return fmt.Sprintf("%5.0f published, %6.0f received, %2.0f lost, %2.0f repeated, %2.0f out of order, %2.0f gaps told; "+
		"%3.0f reconnects (%3.0f handovers), at most %3.0f/s; without a connection %4.0f ms p50, %5.0f p99, %5.0f max; latency %5.1f ms p50, %7.1f p99",
		f["published"], f["received"], f["lost"], f["repeated"], f["out of order"], f["gaps told"],
		f["reconnects"], f["of them handovers"], f["peak reconnects/s"],
		f["without a connection p50"], f["without a connection p99"], f["without a connection max"], f["latency p50"], f["latency p99"])
}
