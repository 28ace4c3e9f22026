package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// trimEvery is how often the heap is looked at.
	trimEvery = 15 * time.Second
	// trimShare is the part of the live heap that may lie unused before a trim pays, and
	// quietShare that which may be allocated in trimEvery: what idle connections need is
	// about a quarter, above all for verifying their sessions.
	trimShare  = 4
	quietShare = 2
	// trimLeast is what is not worth a collection.
	trimLeast = 4 << 20
)

// trimMemory gives memory back to the system once a burst is over, until ctx is
// done. Go keeps what the heap has had room for, up to twice of what lives
// (GOGC), in case it is needed again; a node whose connections have come needs it
// for nothing until the next burst.
func trimMemory(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	before := readHeap()
	needed := uint64(0) // what the last trim could not give back
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := readHeap()
		if now.quietSince(before) && now.wasteful(needed) {
			debug.FreeOSMemory()
			now = readHeap()
			needed = now.held
		}
		before = now
	}
}

// heap is how the Go runtime uses memory, in bytes.
type heap struct {
	allocated uint64 // since the start
	live      uint64 // as of the last collection
	held      uint64 // by the heap, in use or not
}

func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	return heap{
		allocated: s[0].Value.Uint64(), live: s[1].Value.Uint64(),
		held: s[2].Value.Uint64() + s[3].Value.Uint64() + s[4].Value.Uint64(),
	}
}

// quietSince reports whether little was allocated since before.
func (h heap) quietSince(before heap) bool {
	return h.allocated-before.allocated < max(h.live/quietShare, 2*trimLeast)
}

// wasteful reports whether the heap holds much more than lives, and than is needed.
func (h heap) wasteful(needed uint64) bool {
	return h.held > max(h.live, needed)+max(h.live/trimShare, trimLeast)
}
