package transport

import "sync/atomic"

// workers do what needs a large stack: they answer handshakes, and serve connections
// that have something to read. Their goroutines stay for what comes next, as long as
// there are not too many: a new one would have to grow its stack first, which costs
// a handshake a tenth.
type workers struct {
	tasks chan Task
	idle  atomic.Int32
	over  chan struct{} // closed by stop
}

// Task is what a worker does. It recovers from its own panics.
type Task interface{ Do() }

// IdleWorkers is how many wait at the most. Meanwhile the garbage collector makes
// their stacks small again.
const IdleWorkers = 256

func newWorkers() *workers { return &workers{tasks: make(chan Task), over: make(chan struct{})} }

// take has a task done. It does not wait.
func (w *workers) take(t Task) {
	select {
	case w.tasks <- t:
	default:
		go w.run(t)
	}
}

func (w *workers) run(t Task) {
	for {
		t.Do()
		if w.idle.Add(1) > IdleWorkers {
			w.idle.Add(-1)
			return
		}
		select {
		case t = <-w.tasks:
			w.idle.Add(-1)
		case <-w.over:
			return
		}
	}
}

// stop lets those go that wait.
func (w *workers) stop() { close(w.over) }
