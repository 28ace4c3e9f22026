package gateway

import (
	"math"
	"runtime/debug"
	"strings"
	"testing"
)

// TestMemoryOfANode: unless it is set it follows GOMEMLIMIT, so that a pod is not
// killed for what its clients do not take. It is not parallel: it changes the limit.
func TestMemoryOfANode(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	for _, test := range []struct {
		set, limit, want int64
	}{
		{0, math.MaxInt64, 1 << 30},
		{0, 400 << 20, 200 << 20},
		{0, 1 << 20, minMemory},
		{50 << 20, 400 << 20, 50 << 20},
	} {
		debug.SetMemoryLimit(test.limit)
		cfg := DefaultConfig()
		cfg.Limits.Memory = Size(test.set)
		if got := cfg.memory(); got != test.want {
			t.Errorf("%d with a limit of %d: %d, want %d", test.set, test.limit, got, test.want)
		}
	}
	for value, want := range map[Size]string{
		1 << 20: "at least 16MiB", 16 << 20: "four times limits.outbox", -1: "at least 16MiB",
	} {
		cfg := DefaultConfig()
		cfg.NodeName, cfg.JWTSecret = "a", strings.Repeat("s", 32)
		cfg.Limits.Memory, cfg.Limits.Outbox = value, 8<<20
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "limits.memory: must be "+want) {
			t.Errorf("%d: %v", value, err)
		}
	}
}
