package gateway_test

import (
	"encoding/json"
	"go/parser"
	gotoken "go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "wssgateway/"

// allowed says which of our packages a package may import. What is not listed
// may import anything.
var allowed = map[string][]string{
	"broker":            {},
	"session":           {},
	"gateway/wire":      {},
	"gateway/transport": {"gateway/wire"},
	"gateway":           {"broker", "session", "gateway/transport", "gateway/wire"},
	"cmd/gateway":       {"broker", "session", "gateway", "gateway/wire", "client"},
	"client":            {"gateway/wire"},
}

// keepers are the only packages that may import what others wrote.
var keepers = map[string][]string{
	"github.com/gin-gonic/gin":       {"gateway"},
	"github.com/redis/go-redis/":     {"broker", "broker/redistest", "session", "cmd/gateway"},
	"github.com/alicebob/miniredis/": {"broker/redistest", "cmd/gateway"},
	"go.opentelemetry.io/otel/sdk":   {"cmd/gateway"},
	"nhooyr.io/websocket":            {},
}

type listedPackage struct {
	ImportPath     string
	Dir            string
	Imports        []string
	GoFiles        []string
	IgnoredGoFiles []string
}

// listPackages returns all packages of the module by their path in it.
func listPackages(t *testing.T) map[string]listedPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles,IgnoredGoFiles", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string]listedPackage{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p listedPackage
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	return all
}

// TestDependencies keeps the arrows of docs/architecture.md true.
func TestDependencies(t *testing.T) {
	t.Parallel()
	all := listPackages(t)
	for _, name := range []string{"broker", "session", "gateway", "gateway/transport", "gateway/wire", "cmd/gateway"} {
		if _, ok := all[name]; !ok {
			t.Errorf("there is no package %s", name)
		}
	}
	for name, p := range all {
		want, bound := allowed[name]
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, module); ok && bound && !slices.Contains(want, ours) {
				t.Errorf("%s imports %s, which is not allowed", name, ours)
			}
			for foreign, by := range keepers {
				if strings.HasPrefix(imp, foreign) && !slices.Contains(by, name) {
					t.Errorf("%s imports %s, which only %v may", name, imp, by)
				}
			}
		}
	}
}

func TestEveryPackageHasOnePackageComment(t *testing.T) {
	t.Parallel()
	for name, p := range listPackages(t) {
		var commented []string
		for _, file := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(gotoken.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				commented = append(commented, file)
			}
		}
		if len(commented) != 1 && len(p.GoFiles) > 0 {
			t.Errorf("%s has its package comment in %v, want one file", name, commented)
		}
	}
}
