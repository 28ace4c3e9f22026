package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// used is what the processes of a name have used so far.
type used struct {
	name string
	cpu  time.Duration // user and system
	rss  int64         // bytes
}

// clockTicks is the unit of /proc/PID/stat: USER_HZ is 100 on all that Linux
// runs on (proc(5)).
const clockTicks = 100

// usages reads what processes use, summed by name. It needs the /proc of Linux.
func usages(pids []watched) ([]used, error) {
	var all []used
	for _, w := range pids {
		u, err := usageOf(w.pid)
		if err != nil {
			return nil, fmt.Errorf("--pid %d: %w", w.pid, err)
		}
		i := slices.IndexFunc(all, func(u used) bool { return u.name == w.name })
		if i < 0 {
			i = len(all)
			all = append(all, used{name: w.name})
		}
		all[i].cpu += u.cpu
		all[i].rss += u.rss
	}
	return all, nil
}

func usageOf(pid int) (used, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return used{}, err
	}
	// The name of the program may hold anything; after it, utime and stime are
	// the 12th and 13th, and rss, in pages, the 22nd.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var numbers [3]int64
	for i, at := range []int{11, 12, 21} {
		if at >= len(fields) {
			return used{}, fmt.Errorf("/proc/%d/stat is not understood", pid)
		}
		if numbers[i], err = strconv.ParseInt(string(fields[at]), 10, 64); err != nil {
			return used{}, err
		}
	}
	return used{
		cpu: time.Duration(numbers[0]+numbers[1]) * (time.Second / clockTicks),
		rss: numbers[2] * int64(os.Getpagesize()),
	}, nil
}
