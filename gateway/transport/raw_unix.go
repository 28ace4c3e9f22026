//go:build unix

package transport

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// rawConn returns the access to a connection's descriptor, or nil if it has none.
func rawConn(c net.Conn) syscall.RawConn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readNow reads what is there without waiting. Go opens descriptors non-blocking.
func readNow(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// peekNow reports whether there is something to read.
func peekNow(raw syscall.RawConn) (found bool) {
	_ = raw.Control(func(fd uintptr) { // on one that is closed nothing is found
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		found = err == nil && n > 0
	})
	return found
}

func wouldBlock(err error) bool { return errors.Is(err, syscall.EAGAIN) }

// rawWrite is one write through a RawConn. It is pooled with the closure that
// RawConn wants, so that a write allocates nothing.
type rawWrite struct {
	b  []byte
	n  int
	do func(uintptr) bool // w.write, made once
}

var rawWrites = sync.Pool{New: func() any {
	w := new(rawWrite)
	w.do = w.write
	return w
}}

func (w *rawWrite) write(fd uintptr) bool {
	for w.n < len(w.b) {
		n, err := syscall.Write(int(fd), w.b[w.n:])
		if n > 0 {
			w.n += n
		}
		if err != nil && err != syscall.EINTR {
			break // full, or broken: the next wait tells
		}
	}
	return true
}

// writeNow writes as much as the kernel takes, without waiting.
func writeNow(raw syscall.RawConn, b []byte) int {
	w := rawWrites.Get().(*rawWrite)
	w.b, w.n = b, 0
	_ = raw.Write(w.do) // a closed connection shows as nothing written
	n := w.n
	w.b = nil
	rawWrites.Put(w)
	return n
}
