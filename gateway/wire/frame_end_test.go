package wire_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

func TestFrameEnd(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var run []byte
		ends := []int{0}
		for range random.IntN(6) {
			size := []int{0, 1, 125, 126, 300, 65535, 65536}[random.IntN(7)]
			run = append(run, wiretest.ServerFrame(wire.OpText, string(make([]byte, size)))...)
			ends = append(ends, len(run))
		}
		for pos := 0; pos <= len(run); pos += 1 + random.IntN(50) {
			i, _ := slices.BinarySearch(ends, pos)
			if got := wire.FrameEnd(run, pos); got != ends[i] {
				t.Fatalf("FrameEnd at %d of frames that end at %v: %d", pos, ends, got)
			}
		}
	}
}
