package main

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoryIsGivenBack: a burst is over, nothing happens, and the heap holds
// little more than what lives.
func TestMemoryIsGivenBack(t *testing.T) {
	burst()
	if h := readHeap(); !h.wasteful(0) && h.held < 64<<20 {
		t.Fatalf("after the burst: %+v", h)
	}
	runtime.GC()
	synctest.Test(t, func(t *testing.T) {
		go func() { _ = trimMemory(t.Context()) }()
		time.Sleep(3 * trimEvery) // the second and third find it quiet
		synctest.Wait()
	})
	if h := readHeap(); h.wasteful(0) {
		t.Errorf("held without need: %+v", h)
	}
}

// burst needs 64 MiB for a moment.
func burst() {
	all := make([][]byte, 0, 64<<10)
	for range cap(all) {
		all = append(all, make([]byte, 1024))
	}
	runtime.KeepAlive(all)
}

func TestBusyHeapIsLeftAlone(t *testing.T) {
	before := heap{allocated: 100 << 20, live: 40 << 20, held: 80 << 20}
	busy := heap{allocated: 120 << 20, live: 40 << 20, held: 80 << 20}
	if busy.quietSince(before) || !busy.wasteful(0) {
		t.Errorf("%+v after %+v", busy, before)
	}
	if busy.wasteful(75 << 20) {
		t.Errorf("%+v, of which 75 MiB are needed", busy)
	}
	if quiet := (heap{allocated: 105 << 20, live: 40 << 20, held: 48 << 20}); !quiet.quietSince(before) || quiet.wasteful(0) {
		t.Errorf("%+v after %+v", quiet, before)
	}
}
