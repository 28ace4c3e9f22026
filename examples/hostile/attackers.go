package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"wssgateway/examples/hostile/attack"
)

// What this program does when it is started by itself: it attacks, or it serves
// attackers. Either ends when its input does, so also when who started it is gone.
const (
	asAttackers = "as-attackers"
	asSink      = "as-sink"
)

// begins does what a process of this program does that was started by another, and
// reports whether this is one.
func begins(what string) bool {
	if what != asAttackers && what != asSink {
		return false
	}
	renice(attackersNice)
	in := bufio.NewReader(os.Stdin)
	orders, err := in.ReadBytes('\n')
	if err != nil {
		return true
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, in) // until who started it has had enough
		stop()
	}()
	if err := begin(ctx, what, orders); err != nil {
		fmt.Fprintln(os.Stderr, what, err)
	}
	return true
}

// orders say what attackers do.
type orders struct {
	Target attack.Target
	Names  []string
}

func begin(ctx context.Context, what string, line []byte) error {
	if what == asSink {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Println(ln.Addr())
		attack.Sink(ctx, ln)
		return nil
	}
	var o orders
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(attack.Run(ctx, o.Target, o.Names))
}

// helper is a process of this program that another one has started.
type helper struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startHelper(ctx context.Context, what string, o orders) (*helper, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &helper{cmd: exec.CommandContext(ctx, program, what)}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is ours to handle
	h.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")        // one processor at most
	h.cmd.Stderr = os.Stderr
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h.out = bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	return h, json.NewEncoder(h.in).Encode(o)
}

// startSink starts a sink and returns its address.
func startSink(ctx context.Context) (*helper, string, error) {
	h, err := startHelper(ctx, asSink, orders{})
	if err != nil {
		return h, "", err
	}
	addr, err := h.out.ReadString('\n')
	return h, strings.TrimSpace(addr), err
}

// results ends attackers and returns what they tell, and the time on the processor
// that they took.
func (h *helper) results() (results []attack.Result, cpu time.Duration, err error) {
	if err := h.in.Close(); err != nil {
		return nil, 0, err
	}
	if err := json.NewDecoder(h.out).Decode(&results); err != nil {
		return nil, 0, fmt.Errorf("attackers: %w", err)
	}
	if err := h.cmd.Wait(); err != nil {
		return nil, 0, fmt.Errorf("attackers: %w", err)
	}
	return results, h.cmd.ProcessState.UserTime() + h.cmd.ProcessState.SystemTime(), nil
}

// kill ends the process, if it runs.
func (h *helper) kill() {
	if h != nil && h.cmd.Process != nil && h.cmd.ProcessState == nil {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait() // says "killed"
	}
}
