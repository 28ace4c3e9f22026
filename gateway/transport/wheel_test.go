package transport

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// firing counts how often a timer fires, and at which tick it last did.
type firing struct {
	timed
	w  *wheel
	n  int
	at int32
}

func newFiring(w *wheel) *firing {
	f := &firing{w: w}
	f.fire = func() { f.n, f.at = f.n+1, w.now.Load() }
	return f
}

func turnTo(w *wheel, tick int32) {
	for w.now.Load() < tick {
		w.turn()
	}
}

func TestTimersFireOnceAndOnTheirTick(t *testing.T) {
	w := newWheel()
	random := rand.New(rand.NewPCG(1, 2))
	const longest = 5 * wheelSlots
	var timers []*firing
	due := map[*firing]int32{}
	for range 10_000 {
		f := newFiring(w)
		timers = append(timers, f)
		due[f] = set(w, f, random.Int32N(longest))
		if len(timers)%20 == 0 {
			w.turn()
		}
		other := timers[random.IntN(len(timers))]
		switch {
		case other.n > 0:
		case random.IntN(3) == 0:
			w.cancel(&other.timed)
			due[other] = 0
		case random.IntN(3) == 0:
			due[other] = set(w, other, random.Int32N(longest))
		}
	}
	turnTo(w, w.now.Load()+longest+1)
	for i, f := range timers {
		switch want := due[f]; {
		case want == 0 && f.n != 0:
			t.Fatalf("timer %d fired though cancelled", i)
		case want != 0 && (f.n != 1 || f.at != want):
			t.Fatalf("timer %d fired %d times, last at %d, want once at %d", i, f.n, f.at, want)
		}
	}
	for i, head := range w.slots {
		if head != nil {
			t.Fatalf("slot %d is not empty at the end", i)
		}
	}
}

// set schedules f and returns when it has to fire.
func set(w *wheel, f *firing, d int32) int32 {
	due := w.now.Load() + max(d, 1)
	w.schedule(&f.timed, at(due))
	return due
}

func at(tick int32) func() int32 { return func() int32 { return tick } }

func TestTimersAreSetWhileTheyFire(t *testing.T) {
	w := newWheel()
	every, other, cancelled := newFiring(w), newFiring(w), newFiring(w)
	fire := every.fire
	every.fire = func() {
		fire()
		w.schedule(&every.timed, at(w.now.Load()+wheelSlots)) // comes to lie in the slot that is read
		w.schedule(&other.timed, at(0))
		w.cancel(&cancelled.timed)
	}
	w.schedule(&every.timed, at(1))
	w.schedule(&cancelled.timed, at(2))
	turnTo(w, 10*wheelSlots)
	if every.n != 10 || other.n != 10 || cancelled.n != 0 {
		t.Errorf("fired %d, %d and %d times", every.n, other.n, cancelled.n)
	}
}

// TestNothingFiresEarly sets timers at any moment between two ticks.
func TestNothingFiresEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := newWheel()
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx) }()
		random := rand.New(rand.NewPCG(3, 4))
		fired := 0
		for range 1000 {
			d := time.Duration(random.Int64N(int64(3 * time.Second)))
			start := time.Now()
			f := &timed{}
			f.fire = func() {
				fired++
				if took := time.Since(start); took < d || took > d+2*wheelTick {
					t.Errorf("set to %v, fired after %v", d, took)
				}
			}
			w.schedule(f, at(w.now.Load()+ticks(d)))
			time.Sleep(time.Duration(random.Int64N(int64(2 * wheelTick)))) // the bubble's time
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if fired != 1000 {
			t.Errorf("%d of 1000 fired", fired)
		}
		stop()
		<-done
	})
}
