package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// bench is a run of a scenario.
type bench struct {
	options
	start       time.Time
	subscribers []*subscriber
	http        *http.Client
	report      report
	progress    *progress

	connected atomic.Int64
	delivered atomic.Int64
	gaps      atomic.Int64 // told: recovered:false, reset
	fresh     atomic.Int64 // sessions that were not resumed
	dropped   atomic.Int64 // connections that ended, and should not have

	key     string // begins the idempotency keys
	flights [flightSlots]atomic.Pointer[flight]
	number  atomic.Int64

	mu        sync.Mutex // guards what follows
	published map[string][]int
}

// flight is a message that is under way.
type flight struct {
	n    int
	left atomic.Int64  // receivers that do not have it
	done chan struct{} // closed when all have it
}

// flightSlots is how many messages may be under way.
const flightSlots = 1 << 14

func newBench(name string, o options, stderr io.Writer) (*bench, error) {
	b := &bench{
		options: o, start: time.Now(),
		http: &http.Client{
			Transport: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 1024},
			Timeout:   10 * time.Second,
		},
		report:    report{Scenario: name, Started: time.Now().UTC().Format(time.RFC3339)},
		published: make(map[string][]int),
		key:       rand.Text(),
	}
	for i := range o.connections {
		s := &subscriber{
			bench: b, number: i,
			user: fmt.Sprint(o.name, "-", i), rooms: o.roomsOf(i),
			streams: make(map[string]*stream),
		}
		var err error
		if s.token, err = b.token(s.user); err != nil {
			return nil, err
		}
		b.subscribers = append(b.subscribers, s)
	}
	b.progress = startProgress(b, stderr)
	return b, nil
}

// roomsOf returns the rooms that a connection is in.
func (o *options) roomsOf(connection int) []string {
	rooms := make([]string, o.roomsEach)
	for i := range rooms {
		rooms[i] = fmt.Sprint(o.name, ":", (connection*o.roomsEach+i)%o.rooms)
	}
	return rooms
}

// perRoom returns how many connections are in each room that has any.
func (b *bench) perRoom() (names []string, receivers map[string]int) {
	receivers = make(map[string]int)
	for _, s := range b.subscribers {
		for _, room := range s.rooms {
			if receivers[room]++; receivers[room] == 1 {
				names = append(names, room)
			}
		}
	}
	return names, receivers
}

func (b *bench) token(user string) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "subscribe": []string{"*"}, "exp": time.Now().Add(24 * time.Hour).Unix(),
	}).SignedString([]byte(b.secret))
}

// close ends all connections.
func (b *bench) close() {
	b.progress.stop()
	for _, s := range b.subscribers {
		if s.link != nil {
			s.cut()
		}
	}
}

// now is the time since the start, by the clock that does not jump.
func (b *bench) now() time.Duration { return time.Since(b.start) }

// connectAll connects all subscribers, some at a time.
func (b *bench) connectAll(ctx context.Context) error {
	b.progress.phase("connecting")
	begin := time.Now()
	err := b.each(ctx, func(s *subscriber) error {
		if err := s.connect(ctx); err != nil {
			return err
		}
		b.connected.Add(1)
		return nil
	})
	b.report.add("connected", float64(b.connected.Load()), "")
	b.report.add("connecting took", time.Since(begin).Seconds(), "s")
	return err
}

// each calls f for every subscriber, --parallel at a time, and returns the first
// error.
func (b *bench) each(ctx context.Context, f func(*subscriber) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, b.parallel)
	for range b.parallel {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(b.subscribers) {
					return
				}
				if err := f(b.subscribers[i]); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return ctx.Err()
	}
}

// fly registers a message that so many connections are to get, and gives it a
// number.
func (b *bench) fly(receivers int) *flight {
	f := &flight{n: int(b.number.Add(1)), done: make(chan struct{})}
	f.left.Store(int64(receivers))
	b.flights[f.n%flightSlots].Store(f)
	return f
}

// arrived takes in that a connection has got a message.
func (b *bench) arrived(n int) {
	b.delivered.Add(1)
	if f := b.flights[n%flightSlots].Load(); f != nil && f.n == n && f.left.Add(-1) == 0 {
		close(f.done)
	}
}

// errNotArrived says that a message did not come within arrivalTimeout; verify
// counts what is lost.
var errNotArrived = errors.New("a message has not arrived everywhere")

const arrivalTimeout = 15 * time.Second

func (f *flight) await(ctx context.Context) error {
	t := time.NewTimer(arrivalTimeout)
	defer t.Stop()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return fmt.Errorf("%w: number %d, %d receivers lack it", errNotArrived, f.n, f.left.Load())
	}
}

// verify compares what was acknowledged with what came, for every subscriber and
// channel.
func (b *bench) verify() error {
	var repeated, disordered, received int
	for _, s := range b.subscribers {
		s.mu.Lock()
		for _, channel := range s.channels() {
			st := s.stream(channel)
			repeated, disordered, received = repeated+st.repeated, disordered+st.disordered, received+st.count()
		}
		s.mu.Unlock()
	}
	lost := b.missing()
	messages := 0
	for _, list := range b.published {
		messages += len(list)
	}
	b.report.add("published", float64(messages), "")
	b.report.add("received", float64(received), "")
	b.report.add("lost", float64(lost), "")
	b.report.add("repeated", float64(repeated), "")
	b.report.add("out of order", float64(disordered), "")
	b.report.add("gaps told", float64(b.gaps.Load()), "")
	b.report.add("connections dropped", float64(b.dropped.Load()), "")
	if lost+repeated+disordered > 0 || b.gaps.Load() > 0 || b.dropped.Load() > 0 {
		return errors.Join(errors.New("not as it should be: see what was lost, repeated, out of order, told as a gap or dropped"), b.firstError())
	}
	return nil
}

// missing returns how many deliveries of what was acknowledged have not come.
func (b *bench) missing() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.subscribers {
		s.mu.Lock()
		for _, channel := range s.channels() {
			st := s.stream(channel)
			for _, number := range b.published[channel] {
				if !st.has(number) {
					n++
				}
			}
		}
		s.mu.Unlock()
	}
	return n
}

func (b *bench) firstError() error {
	for _, s := range b.subscribers {
		s.mu.Lock()
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("%s: %w", s.user, err)
		}
	}
	return nil
}

// latencies returns what messages took that were published in a span of the run,
// sorted.
func (b *bench) latencies() []time.Duration {
	var all []time.Duration
	for _, s := range b.subscribers {
		s.mu.Lock()
		all = append(all, s.latency...)
		s.mu.Unlock()
	}
	slices.Sort(all)
	return all
}

// forget drops the latencies so far: they were those of the warm-up.
func (b *bench) forget() {
	for _, s := range b.subscribers {
		s.mu.Lock()
		s.latency = s.latency[:0]
		s.mu.Unlock()
	}
}

// measured is what a phase of a run cost.
type measured struct {
	bench     *bench
	begin     time.Time
	delivered int64
	use       []used
}

// measure begins a phase.
func (b *bench) measure() (measured, error) {
	use, err := usages(b.pids)
	return measured{b, time.Now(), b.delivered.Load(), use}, err
}

// work is a unit that a phase is measured in.
type work struct{ one, many string }

// end ends the phase and reports what a second did, and the CPU time per unit of
// work, of which there were count.
func (m measured) end(unit work, count int64) error {
	took := time.Since(m.begin)
	m.bench.report.add(unit.many+"/s", float64(count)/took.Seconds(), "")
	after, err := usages(m.bench.pids)
	if err != nil {
		return err
	}
	for i, u := range after {
		used := u.cpu - m.use[i].cpu
		m.bench.report.add(u.name+" CPU", used.Seconds()/took.Seconds(), "cores")
		if count > 0 {
			m.bench.report.add(fmt.Sprintf("%s CPU per %s", u.name, unit.one), float64(used.Nanoseconds())/1e3/float64(count), "us")
		}
	}
	return nil
}

// deliveries returns how many deliveries there were since the phase began.
func (m measured) deliveries() int64 { return m.bench.delivered.Load() - m.delivered }
