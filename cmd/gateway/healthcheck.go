package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// healthcheckTimeout is what Docker and Kubernetes give a check at least, with
// room for the start of the process.
const healthcheckTimeout = 3 * time.Second

// healthcheckOptions are the flags of gateway healthcheck.
type healthcheckOptions struct {
	Ready bool `config:"ready" help:"ask whether the node is ready, not only whether it lives"`
}

// healthcheck asks the node that the same configuration would start. It is for
// images that have no shell and no curl.
func healthcheck(p process) int {
	options := &healthcheckOptions{}
	cfg, err := load(p.env, p.args, options)
	if err != nil {
		p.complain(err)
		return exitUsage
	}
	path := "/healthz"
	if options.Ready {
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthcheckTimeout)
	defer cancel()
	if err := askHealth(ctx, "http://"+reachable(cfg.AdminListen)+path); err != nil {
		p.complain(err)
		return exitFailed
	}
	return exitOK
}

// askHealth asks directly: a proxy from the environment has no business
// between a process and its own host.
func askHealth(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("healthcheck: admin_listen gives no address to ask: %s", quote(address))
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if urlErr, ok := errors.AsType[*url.Error](err); ok {
			err = urlErr.Err // the address stands in front anyway
		}
		return fmt.Errorf("healthcheck: %s: %w", address, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	const most = 200                                      // the reason is one short line
	why, _ := io.ReadAll(io.LimitReader(resp.Body, most)) // as far as it came
	if len(why) > 0 {
		return fmt.Errorf("healthcheck: %s: answered %s: %s", address, resp.Status, oneLine(strings.TrimSpace(string(why))))
	}
	return fmt.Errorf("healthcheck: %s: answered %s", address, resp.Status)
}

// reachable returns the address at which something that listens on addr is
// reached from the same host.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func healthcheckUsage(w io.Writer) {
	fmt.Fprint(w, `Usage: gateway healthcheck [flags]

Asks the admin address for /healthz. Exit code 0: the node lives; 1: it does not.
`)
	writeOptions(w, &healthcheckOptions{})
}
