package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"wssgateway/examples/lab"
)

const (
	mib = 1 << 20
	// podLimit is resources.limits.memory of the chart, and goLimit the part of it
	// that goMemoryPercent gives to Go.
	podLimit = 512 * mib
	goLimit  = podLimit * 70 / 100
	// giveBack is by how much more may be in use afterwards.
	giveBack = 30 * mib
	// fatal is where a gateway is not let grow any more, for the sake of the machine.
	fatal = 2 << 30
)

// status returns a value of /proc/PID/status, in bytes.
func status(pid int, name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if value, ok := strings.CutPrefix(string(line), name+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, name)
}

// resident returns how much memory the gateway has now, and the most it ever had:
// what the kernel counts against a pod's limit, but for sockets.
func resident(n *lab.Node) (now, most int64, err error) {
	if now, err = status(n.PID(), "VmRSS"); err != nil {
		return 0, 0, err
	}
	most, err = status(n.PID(), "VmHWM")
	return now, most, err
}

// guard ends the run when the gateway outgrows the machine.
func guard(ctx context.Context, n *lab.Node, end func(error)) {
	for lab.Pause(ctx, 100*time.Millisecond) == nil {
		if now, _, err := resident(n); err != nil || now > fatal {
			end(fmt.Errorf("the gateway has %d MiB, or is gone: %w", now/mib, err))
			return
		}
	}
}

// sockets returns what all TCP sockets of the machine keep in the kernel.
func sockets() int64 {
	b, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "TCP: ")
	fields := strings.Fields(after)
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "mem" {
			pages, _ := strconv.ParseInt(fields[i+1], 10, 64)
			return pages * int64(os.Getpagesize())
		}
	}
	return 0
}

// metrics are values of /metrics by name, labels included.
type metrics map[string]float64

func scrape(ctx context.Context, n *lab.Node) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	m := make(metrics)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			m[name] = v
		}
	}
	return m, lines.Err()
}

// mebibytes returns a value in MiB.
func (m metrics) mebibytes(name string) string { return fmt.Sprintf("%.0f", m[name]/mib) }
