// Package attack is clients that wish a gateway ill: each Attack does one thing
// that a peer may do, at a rate that is bounded, and tells what it sent and how
// the gateway reacted. It speaks to 127.0.0.1 alone.
package attack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Attack is one thing that hostile clients do.
type Attack struct {
	Name  string
	About string // what is done, and how often
	// PerSecond is how many acts there must be, on the average of the whole time,
	// for the attack to have been one.
	PerSecond float64
	// Wants are reactions all of which must be seen, Never those none of which may
	// be. "a|b" is either, and what ends with * is a prefix.
	Wants, Never []string

	run func(context.Context, *front)
}

// All returns all attacks.
func All() []Attack {
	return slices.Concat(cuts(), deflates(), floods(), oversized(), slowHTTP(), replays(), histories(),
		calls(), presences(), slowReaders(), churns(), garbage(), limits())
}

// Target is what is attacked. The attackers have tokens of their own, as any
// user has.
type Target struct {
	Public, Admin string // host:port
	Secret        string // that tokens are signed with
	APIKey        string // of the backends whose messages slow readers do not read
}

// Result is what became of an attack.
type Result struct {
	Name      string
	Acts      int64
	Bytes     int64
	Reactions map[string]int64
}

// endPatience is how long attackers may take to end once they are told to.
const endPatience = 3 * time.Second

// Run attacks a target until ctx is done, with the attacks of these names, or with
// all, and tells of each.
func Run(ctx context.Context, t Target, names []string) []Result {
	var fronts []*front
	var wg sync.WaitGroup
	for _, a := range Chosen(names) {
		f := &front{target: t, Result: Result{Name: a.Name, Reactions: make(map[string]int64)}}
		fronts = append(fronts, f)
		wg.Go(func() { a.run(ctx, f) })
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	<-ctx.Done()
	select {
	case <-ended:
	case <-time.After(endPatience): // the process ends, and with it what is left
	}
	var results []Result
	for _, f := range fronts {
		results = append(results, f.result())
	}
	return results
}

// Chosen returns the attacks of these names, or all.
func Chosen(names []string) []Attack {
	return slices.DeleteFunc(All(), func(a Attack) bool { return len(names) > 0 && !slices.Contains(names, a.Name) })
}

// Judge returns what is wrong with the result of an attack that took so long.
func (a Attack) Judge(r Result, took time.Duration) []string {
	var wrong []string
	if float64(r.Acts) < a.PerSecond*took.Seconds() || r.Acts == 0 {
		wrong = append(wrong, fmt.Sprintf("has hardly acted: %d times", r.Acts))
	}
	for _, want := range a.Wants {
		if !r.has(want) {
			wrong = append(wrong, "never "+want)
		}
	}
	for _, never := range a.Never {
		if r.has(never) {
			wrong = append(wrong, never)
		}
	}
	return wrong
}

func (r Result) has(want string) bool {
	for reaction := range r.Reactions {
		for alternative := range strings.SplitSeq(want, "|") {
			prefix, isPrefix := strings.CutSuffix(alternative, "*")
			if reaction == alternative || isPrefix && strings.HasPrefix(reaction, prefix) {
				return true
			}
		}
	}
	return false
}

func (r Result) String() string {
	var reactions []string
	for reaction, n := range r.Reactions {
		reactions = append(reactions, fmt.Sprintf("%s %d", reaction, n))
	}
	slices.Sort(reactions)
	return fmt.Sprintf("%d acts, %.1f MB: %s", r.Acts, float64(r.Bytes)/1e6, strings.Join(reactions, ", "))
}

// front is where an attack goes on, and what has become of it so far.
type front struct {
	target Target

	mu sync.Mutex // guards what follows
	Result
}

// acted counts acts, and the bytes that were sent for them.
func (f *front) acted(n, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Acts += int64(n)
	f.Bytes += int64(bytes)
}

// saw counts something that the gateway did.
func (f *front) saw(reaction string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Reactions[reaction]++
}

// result returns a copy, which is nobody else's.
func (f *front) result() Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.Result
	r.Reactions = make(map[string]int64, len(f.Reactions))
	for reaction, n := range f.Reactions {
		r.Reactions[reaction] = n
	}
	return r
}
