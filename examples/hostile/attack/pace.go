package attack

import (
	"context"
	"sync"
	"time"
)

// pace lets things happen so often and no more. Several may share it.
type pace struct {
	every time.Duration // one

	mu   sync.Mutex // guards what follows
	next time.Time
}

// paceBurst is how much of what nobody has used may be used later.
const paceBurst = 100 * time.Millisecond

func newPace(perSecond float64) *pace {
	return &pace{every: time.Duration(float64(time.Second) / perSecond)}
}

// wait waits until n more may happen. It reports false once ctx is done.
func (p *pace) wait(ctx context.Context, n int) bool {
	p.mu.Lock()
	now := time.Now()
	if earliest := now.Add(-paceBurst); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(time.Duration(n) * p.every)
	until := p.next.Sub(now)
	p.mu.Unlock()
	return sleep(ctx, until)
}

// sleep waits for d. It reports false once ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// often does something so many times a second, at most so many at a time, until
// ctx is done; which one it is it says to each. It returns when all have ended.
func often(ctx context.Context, perSecond float64, atMost int, do func(i int)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, atMost)
	p := newPace(perSecond)
	for i := 0; p.wait(ctx, 1); i++ {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			do(i)
			<-room
		})
	}
}

// each does something n times at once, each time with another number, and waits
// for all.
func each(n int, do func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}
