package transport

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// poller tells connections when there is something to read (epoll(7)), so that
// none needs a goroutine that waits for it. The descriptor of the epoll instance
// is itself waited for by the runtime, which costs no thread.
//
// A connection is told at every change (EPOLLET), by run's goroutine, which must
// not be held up.
type poller struct {
	file *os.File

	mu    sync.Mutex // guards what follows
	conns []*Conn    // by descriptor
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return &poller{file: os.NewFile(uintptr(fd), "epoll")}, nil
}

// epollET is EPOLLET, which package syscall has as a negative number.
const epollET = 1 << 31

// add has a connection told from now on. It reports false for one that cannot
// be waited for like this.
func (p *poller) add(c *Conn) bool {
	if c.raw == nil {
		return false
	}
	added := false
	_ = c.raw.Control(func(fd uintptr) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for len(p.conns) <= int(fd) {
			p.conns = append(p.conns, nil)
		}
		p.conns[fd] = c
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | epollET, Fd: int32(fd)}
		err := p.control(syscall.EPOLL_CTL_ADD, int(fd), &event)
		if added = err == nil; !added {
			p.conns[fd] = nil
		}
		c.descriptor = int32(fd)
	})
	return added
}

func (p *poller) control(op, fd int, event *syscall.EpollEvent) (err error) {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	if gone := raw.Control(func(epoll uintptr) { err = syscall.EpollCtl(int(epoll), op, fd, event) }); gone != nil {
		return gone
	}
	return err
}

// remove forgets a connection. Its descriptor leaves the epoll instance when it
// is closed, and may be another connection's already.
func (p *poller) remove(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fd := int(c.descriptor); fd < len(p.conns) && p.conns[fd] == c {
		p.conns[fd] = nil
	}
}

// run tells connections until ctx is done.
func (p *poller) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = p.file.Close() })()
	raw, err := p.file.SyscallConn()
	if err != nil {
		return // ctx is done
	}
	events := make([]syscall.EpollEvent, 128)
	ready := make([]*Conn, 0, len(events))
	n := 0
	wait := func(epoll uintptr) bool {
		n, err = syscall.EpollWait(int(epoll), events, 0)
		return n > 0 || err != nil && !errors.Is(err, syscall.EINTR)
	}
	for {
		if gone := raw.Read(wait); gone != nil {
			return // closed, above
		}
		if err != nil {
			panic(fmt.Sprintf("gateway: epoll_wait: %v", err)) // the descriptor is ours, and open
		}
		ready = p.lookUp(events[:n], ready[:0])
		for _, c := range ready {
			c.ready()
		}
		clear(ready)
	}
}

// lookUp appends the connections that events are about.
func (p *poller) lookUp(events []syscall.EpollEvent, to []*Conn) []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range events {
		if c := p.conns[events[i].Fd]; c != nil {
			to = append(to, c)
		}
	}
	return to
}
