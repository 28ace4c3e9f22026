package redistest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// errMissing is the one line that a machine without Redis gets.
var errMissing = errors.New("redis-server and redis-cli are needed by the tests: run `make deps`")

// logTail is how much of a server's log a failed test shows.
const logTail = 16 << 10

// process is one run of redis-server.
type process struct {
	cmd     *exec.Cmd
	logPath string
	exited  chan struct{} // closed when the process has been waited for
}

// startProcess runs redis-server with argv; what it prints is appended to the
// file logPath.
func startProcess(logPath string, argv []string) (*process, error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errMissing
	}
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{cmd: exec.Command(bin, argv...), logPath: logPath, exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = dieWithParent()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in the log
		close(p.exited)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the process with SIGKILL, which works on a paused one as well.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only if it is gone already
	<-p.exited
}

// stop asks the process to end and kills it if it has not within timeout.
func (p *process) stop(timeout time.Duration) error {
	_ = p.resume() // a paused process handles no other signal
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return nil
	case <-time.After(timeout):
		p.kill()
		return fmt.Errorf("still running %v after SIGTERM", timeout)
	}
}

// pause returns when the process is frozen, where the system tells.
func (p *process) pause() error {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	for !p.frozen() {
		if time.Now().After(deadline) {
			return fmt.Errorf("not frozen within %v", startTimeout)
		}
		time.Sleep(time.Millisecond) // between two looks at a condition
	}
	return nil
}

func (p *process) resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// frozen reads the process state where there is a /proc; elsewhere the signal
// is taken to have worked.
func (p *process) frozen() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
	if err != nil {
		return true
	}
	// The file reads "pid (name) state ...".
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "T")
}

// log is the end of what this and earlier runs in the directory printed.
func (p *process) log() string {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-logTail):])
}
