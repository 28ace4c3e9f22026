package gateway

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// socket is the network connection under a WebSocket, as the library gets it
// and as the hub writes to it.
//
// Reading, it knows where frames begin, answers pings and swallows pongs, so
// that the library is entered only for a frame that is there, and nothing of it
// is in use while the peer is silent. Writing, it sends whole frames, at once if
// the kernel takes them, else from an outbox with a goroutine of its own that
// lives as long as the outbox does.
type socket struct {
	net.Conn
	raw   syscall.RawConn // nil where waiting is the only way: TLS, in memory
	limit int             // bytes the outbox may hold
	owner socketOwner
	seen  *atomic.Int32 // ticks of the wheel
	heard atomic.Int32  // the tick at which something was last read

	// Owned by the goroutine that reads.
	in         *inbuf // nil while empty
	left       int64  // bytes of the frame that the library is reading
	unfinished bool   // the last frame for the library was not its message's last
	compressed bool   // the message that the library is reading, or has read

	// Owned by the library's writer.
	control []byte // a control frame that is not whole yet

	mu       sync.Mutex // guards what follows; held during a write that cannot wait
	out      [][]byte   // each a run of whole frames, shared with other sockets
	outPos   int        // bytes of out[0] that are written
	inflight int        // outPos after the write under way
	outBytes int        // not yet written
	flushing bool       // a goroutine sends out
	refused  bool       // a frame did not fit: none but the close frame may follow
	shutting bool       // a close frame was sent, or will be: nothing may follow
	ending   bool       // say that nothing follows once out is empty
	closing  bool       // close once out is empty
	drained  chan struct{}
}

// socketOwner is told how a socket's writing ends. It is called without locks.
type socketOwner interface {
	fail(cause) bool // whether it is the first cause
}

const (
	// flushPiece is how much is written under one deadline: a peer that takes
	// this much in writeTimeout is slow, but alive.
	flushPiece   = 16 << 10
	writeTimeout = 30 * time.Second
	// kernelBuffer is how much the kernel may take for a peer that does not
	// read. Linux would grow it to four megabytes, which no limit of ours counts,
	// and behind which a ping waits longer than a peer may be silent.
	kernelBuffer = 128 << 10
)

var errEarly = errors.New("too much was sent before the handshake was answered")

// adopt takes a connection over, with what was read from it already.
func (s *socket) adopt(nc net.Conn, early []byte) error {
	s.Conn = nc
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(kernelBuffer) // one that is broken shows soon enough
	}
	s.raw = rawConn(nc)
	if len(early) == 0 {
		return nil
	}
	room := s.room()
	if len(early) > len(room) {
		return errEarly
	}
	s.took(copy(room, early))
	return nil
}
