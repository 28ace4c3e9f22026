//go:build !unix

package transport

import (
	"errors"
	"net"
	"syscall"
)

// Elsewhere a connection is read and written by goroutines that wait.

func rawConn(net.Conn) syscall.RawConn { return nil }

func readNow(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

func peekNow(syscall.RawConn) bool { return false }

func wouldBlock(error) bool { return false }

func writeNow(syscall.RawConn, []byte) int { return 0 }
