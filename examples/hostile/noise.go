package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"wssgateway/examples/lab"
)

const (
	// clockTicks is the unit of /proc: USER_HZ is 100 on all that Linux runs on
	// (proc(5)).
	clockTicks = 100
	// others is the part of the processors that processes which have nothing to do
	// with this run may have for all of it to be judged.
	others = 0.15
)

// Who is measured, the gateway and Redis among them, goes before whatever else runs
// on the machine, where that is allowed; attackers come last.
const measuredNice, attackersNice = -10, 10

// renice gives this process, and those that it starts, another priority if it may.
func renice(n int) {
	threads, err := os.ReadDir("/proc/self/task") // Linux has one for each
	if err != nil {
		return
	}
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, n) // lower than 0 is for root
		}
	}
}

// noise is what other processes had of the processors, second by second.
type noise struct {
	mu      sync.Mutex // guards what follows
	seconds []second
}

// second is about a second.
type second struct {
	begin, end time.Time
	others     float64 // their part of all processors
}

// listen takes note until ctx is done. Ours are the processes that belong to the run.
func (n *noise) listen(ctx context.Context, ours func() []int) {
	pids := ours()
	at, before := time.Now(), foreignTicks(pids)
	for lab.Pause(ctx, time.Second) == nil {
		now, after := time.Now(), foreignTicks(pids)
		busy := float64(after-before) / clockTicks / now.Sub(at).Seconds() / float64(runtime.NumCPU())
		n.mu.Lock()
		n.seconds = append(n.seconds, second{at, now, busy})
		n.mu.Unlock()
		pids = ours()
		at, before = now, foreignTicks(pids)
	}
}

// between returns the seconds between two times.
func (n *noise) between(begin, end time.Time) (seconds []second) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.seconds {
		if s.begin.After(begin) && s.end.Before(end) {
			seconds = append(seconds, s)
		}
	}
	return seconds
}

// mean returns what others had on the average.
func mean(seconds []second) (sum float64) {
	for _, s := range seconds {
		sum += s.others / float64(len(seconds))
	}
	return sum
}

// foreignTicks returns for how long processors were busy with other processes than
// these, of all of them and since ever. What the kernel does for the network apart
// from processes is not counted: it is mostly for ours.
func foreignTicks(pids []int) (ticks int64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	fields := bytes.Fields(line) // cpu user nice system idle iowait irq softirq steal
	for _, i := range []int{1, 2, 3, 8} {
		ticks += number(fields, i)
	}
	for _, pid := range pids {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			// The name of the program may hold anything; after it, utime and stime
			// are the 12th and the 13th.
			fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
			ticks -= number(fields, 11) + number(fields, 12)
		}
	}
	return ticks
}

func number(fields [][]byte, i int) int64 {
	if i >= len(fields) {
		return 0
	}
	n, _ := strconv.ParseInt(string(fields[i]), 10, 64)
	return n
}
