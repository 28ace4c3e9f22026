package gateway

import "sync/atomic"

// crew serves connections that have something to read. Its goroutines stay for
// the next one, as long as there are not too many: a new one would have to grow
// its stack first.
type crew struct {
	work chan *conn
	idle atomic.Int32
	over chan struct{} // closed by stop
}

// crewIdle is how many goroutines wait at the most.
const crewIdle = 64

func newCrew() *crew { return &crew{work: make(chan *conn), over: make(chan struct{})} }

// serve has a connection served. It does not wait.
func (w *crew) serve(c *conn) {
	select {
	case w.work <- c:
	default:
		go w.run(c)
	}
}

func (w *crew) run(c *conn) {
	for {
		c.serve()
		if w.idle.Add(1) > crewIdle {
			w.idle.Add(-1)
			return
		}
		select {
		case c = <-w.work:
			w.idle.Add(-1)
		case <-w.over:
			return
		}
	}
}

// stop lets those go that wait.
func (w *crew) stop() { close(w.over) }
