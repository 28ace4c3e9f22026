// Command gateway runs one node of the WebSocket gateway and the small tools
// that belong to it: a token, a health check, its version.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Exit codes: scripts and supervisors tell by them whether another try can help.
const (
	exitOK     = 0
	exitFailed = 1 // it started, or tried to, and something went wrong
	exitUsage  = 2 // what the operator wrote is wrong; another try will not help
)

func main() {
	os.Exit(run(process{os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr}))
}

// process is what a command gets from the operating system.
type process struct {
	args   []string
	env    []string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// complain writes err to stderr, a line for each line it has.
func (p process) complain(err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(p.stderr, "gateway:", strings.TrimRight(line, "\n"))
	}
}

// command is one thing the program can do.
type command struct {
	name    string
	summary string
	run     func(process) int
	usage   func(io.Writer)
}

func commands() []command {
	return []command{
		{"serve", "run a node; the default", serve, serveUsage},
		{"connect", "connect to a gateway as a client: show what comes, publish what is typed", connect, connectUsage},
		{"check", "prove that a gateway delivers, as a client sees it", check, checkUsage},
		{"token", "print a token for a user, signed with the configured secret", token, tokenUsage},
		{"healthcheck", "ask a node on this host whether it lives", healthcheck, healthcheckUsage},
		{"version", "print the version", printVersion, versionUsage},
	}
}

// run picks the command: the first argument, or serve if there is none or it is
// a flag.
func run(p process) int {
	name := "serve"
	if len(p.args) > 0 && !strings.HasPrefix(p.args[0], "-") {
		name, p.args = p.args[0], p.args[1:]
	}
	switch {
	case name == "help":
		name, p.args = "serve", []string{"--help"}
	case name == "serve" && len(p.args) == 1 && slices.Contains([]string{"-v", "-version", "--version"}, p.args[0]):
		name, p.args = "version", nil
	}
	var names []string
	for _, c := range commands() {
		if c.name == name && wantsHelp(p.args) {
			c.usage(p.stdout)
			return exitOK
		}
		if c.name == name {
			return c.run(p)
		}
		names = append(names, c.name)
	}
	p.complain(fmt.Errorf("%s: unknown command%s; there are %s, help",
		quote(name), suggest("", name, names), strings.Join(names, ", ")))
	return exitUsage
}

func wantsHelp(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		return arg == "-h" || arg == "-help" || arg == "--help"
	})
}
