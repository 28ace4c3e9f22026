package broker

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// life is what a lane knows of the life of its data in Redis: its epoch. When
// Redis has lost data a new epoch begins, and nothing before it is vouched for.
type life struct {
	checking sync.Mutex // held while the epoch is compared with Redis's, through I/O; taken before mu

	mu    sync.Mutex // guards what follows; never held during I/O
	epoch string     // the last one seen: "id kind"
	base  ID         // no position before it is vouched for: the epoch's id after a loss, else 0-0
	gone  ID         // the newest id that was found gone, and for which no epoch has begun yet
	begun time.Time  // when the epoch has, by Redis's clock
	sure  bool       // if the epoch is a first one, nobody has known another

	verdict chan struct{} // closed when sure is set, or the epoch is another one; replaced then

	found chan struct{} // size 1: gone is set
}

// known returns the epoch, and its base.
func (v *life) known() (epoch string, base ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.epoch, v.base
}

// set takes in the epoch of the lane's data and reports whether it is another one
// than before: what the node knew, or took for complete, is not all there.
func (v *life) set(epoch string) (lost bool, err error) {
	text, kind, _ := strings.Cut(epoch, " ")
	id, err := ParseID(text)
	if err != nil {
		return false, fmt.Errorf("epoch %q: %w", epoch, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	lost = v.epoch != "" && v.epoch != epoch
	if v.epoch != epoch {
		v.epoch, v.base, v.sure = epoch, ID{}, false
		v.begun = time.UnixMilli(int64(id.MS))
		v.decided()
	}
	if kind == "lost" {
		v.base = id
	}
	if v.gone.Compare(v.base) <= 0 {
		v.gone = ID{}
	}
	return lost, nil
}

// missing takes in that Redis no longer has what it had up to an id. It reports
// false if that was told already: the present epoch has begun after it.
func (v *life) missing(newest ID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if newest.Compare(v.base) <= 0 {
		return false
	}
	if newest.Compare(v.gone) > 0 {
		v.gone = newest
	}
	signal(v.found)
	return true
}

func (v *life) missed() ID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gone
}

// checkEpoch takes in the epoch as Redis has it. If it is not the one the lane
// knows, or something was found gone since, Redis has lost data, and all that is
// live is in doubt: before anybody else goes by the new epoch.
func (l *lane) checkEpoch(ctx context.Context, epoch any) error {
	l.life.checking.Lock()
	defer l.life.checking.Unlock()
	known, _ := l.life.known()
	gone := l.life.missed()
	if s, _ := epoch.(string); s == known && s != "" && gone.IsZero() {
		return nil
	}
	keys := []string{l.b.layout.epoch(l.number), l.b.layout.agreed(l.number)}
	reply, err := l.batch.eval(ctx, epochScript, keys,
		known, l.floor.get().String(), gone.String(), l.probe, agreedTTL.Milliseconds())
	if err != nil {
		return err
	}
	s, _ := reply.(string)
	lost, err := l.life.set(s)
	if err != nil || !lost {
		return err
	}
	if first, _ := strings.CutSuffix(known, " first"); s == first+" lost" {
		// The lane took its epoch for the first: who was vouched for may lack what was
		// before, whatever has come since.
		l.life.missing(l.floor.get())
	}
	l.b.metrics.losses.Inc()
	l.b.log.Warn("redis has lost data", "lane", l.number, "epoch", s)
	l.doubtAll()
	return nil
}

func (l *lane) doubtAll() {
	for _, s := range l.snapshot() {
		if s.history {
			s.doubt()
			l.toSettle.add(s)
		}
	}
}
