package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// Set by builds that know better than the module's metadata:
// -ldflags '-X main.version=1.2.3 -X main.commit=0a1b2c3'.
var version, commit string

// build is what this binary was made of.
type build struct{ version, commit, goVersion string }

func buildInfo() build {
	b := build{version: version, commit: commit, goVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	b.version = cmp.Or(b.version, info.Main.Version, "unknown")
	b.commit = cmp.Or(b.commit, vcsCommit(info.Settings), "unknown")
	return b
}

// vcsCommit is the commit that the working tree was at, and whether it had
// changes.
func vcsCommit(settings []debug.BuildSetting) string {
	revision, suffix := "", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			suffix = "-dirty"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + suffix
}

func printVersion(p process) int {
	if len(p.args) > 0 {
		p.complain(errors.New("version: takes no arguments"))
		return exitUsage
	}
	b := buildInfo()
	fmt.Fprintf(p.stdout, "gateway %s (commit %s, %s)\n", b.version, b.commit, b.goVersion)
	return exitOK
}

func versionUsage(w io.Writer) {
	fmt.Fprint(w, "Usage: gateway version\n\nPrints the version, the commit and the Go version. So do gateway -v and gateway --version.\n")
}
