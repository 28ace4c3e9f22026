package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"wssgateway/examples/lab"
)

// control is a run with one defence less, which must fail: else the run would not
// notice if the defence were lost.
type control struct {
	name     string
	file     string // of the module
	from, to string // what is in it, once, and what the defence is off with
	attack   string // the only one, which must not be refused as it should be
}

// noBound is more than anybody sends in a run.
const noBound = "1 << 30"

func controls() []control {
	return []control{{
		name: "any number of control frames", file: "gateway/transport/read.go",
		from: "controlBurst = 50", to: "controlBurst = " + noBound, attack: "pings",
	}, {
		name: "any number of fragments", file: "gateway/transport/decode.go",
		from: "maxFragments = 1024", to: "maxFragments = " + noBound, attack: "empty fragments",
	}}
}

// build builds the gateway of a lab without the defence. No file of the module is
// changed: the compiler is given another one in its place.
func (c control) build(ctx context.Context, l *lab.Lab) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("where is the module: %w", err)
	}
	dir, err := os.MkdirTemp("", "hostile")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	original := filepath.Join(strings.TrimSpace(string(root)), c.file)
	source, err := os.ReadFile(original)
	if err != nil {
		return err
	}
	if n := strings.Count(string(source), c.from); n != 1 {
		return fmt.Errorf("%s has %q %d times, want once: where is the defence now?", c.file, c.from, n)
	}
	weaker := filepath.Join(dir, "weaker.go")
	if err := os.WriteFile(weaker, []byte(strings.Replace(string(source), c.from, c.to, 1)), 0o600); err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: weaker}})
	if err != nil {
		return err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return err
	}
	_, err = l.Build(ctx, "wssgateway/cmd/gateway", "-overlay", list)
	return err
}
