package gateway

import "sync/atomic"

// crew does what needs a large stack: it answers handshakes, and serves
// connections that have something to read. Its goroutines stay for what comes
// next, as long as there are not too many: a new one would have to grow its stack
// first, which costs a handshake a tenth.
type crew struct {
	work chan job
	idle atomic.Int32
	over chan struct{} // closed by stop
}

// job is what a goroutine of the crew does.
type job interface{ do() }

// crewIdle is how many goroutines wait at the most. Meanwhile the garbage
// collector makes their stacks small again.
const crewIdle = 256

func newCrew() *crew { return &crew{work: make(chan job), over: make(chan struct{})} }

// take has a job done. It does not wait.
func (w *crew) take(j job) {
	select {
	case w.work <- j:
	default:
		go w.run(j)
	}
}

func (w *crew) run(j job) {
	for {
		j.do()
		if w.idle.Add(1) > crewIdle {
			w.idle.Add(-1)
			return
		}
		select {
		case j = <-w.work:
			w.idle.Add(-1)
		case <-w.over:
			return
		}
	}
}

// stop lets those go that wait.
func (w *crew) stop() { close(w.over) }
