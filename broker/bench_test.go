package broker

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wssgateway/broker/redistest"
)

// BenchmarkPublishParallel publishes from many goroutines to a hundred
// channels, one subscribed; it ends when that one has got all of its messages.
func BenchmarkPublishParallel(b *testing.B) {
	s := redistest.Start(b)
	n := startNode(b, s.Client(b), "", "a")
	sink := &counter{}
	sub, err := n.Subscribe(b.Context(), room(0), true, sink)
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Close()
	payload := fmt.Appendf(nil, "%0128d", 0)
	var published, toRoom0 atomic.Int64
	b.SetParallelism(64)
	b.ReportAllocs()
	cpu := serverCPU(b, n)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := int(published.Add(1)) % 100
			if i == 0 {
				toRoom0.Add(1)
			}
			p := Publication{Channel: room(i), Payload: payload, Retention: Retention{Size: 100, TTL: time.Minute}}
			if _, err := n.Publish(b.Context(), p); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(serverCPU(b, n)-cpu)/float64(b.N), "redis-ns/op")
	eventually(b, "all is delivered", func() bool { return sink.messages.Load() == toRoom0.Load() })
	if resets := sink.resets.Load(); resets > 0 {
		b.Errorf("%d resets", resets)
	}
}

// BenchmarkPublishAlone publishes one message at a time: nothing is shared with
// neighbours.
func BenchmarkPublishAlone(b *testing.B) {
	n := startNode(b, redistest.Start(b).Client(b), "", "a")
	cpu := serverCPU(b, n)
	for b.Loop() {
		n.publish(b, "room", "x", small)
	}
	b.ReportMetric(float64(serverCPU(b, n)-cpu)/float64(b.N), "redis-ns/op")
	if h, err := n.Head(b.Context(), "room", ID{}); err != nil || h.Last.IsZero() {
		b.Errorf("nothing was published: %v", err)
	}
}

// serverCPU returns what Redis has used of its processor.
func serverCPU(b *testing.B, n *node) (used time.Duration) {
	b.Helper()
	info, err := n.rdb.Info(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			used += time.Duration(seconds * float64(time.Second))
		}
	}
	return used
}

// counter is a Sink that only counts.
type counter struct{ messages, resets atomic.Int64 }

func (c *counter) Deliver(Message) { c.messages.Add(1) }
func (c *counter) Reset(ID)        { c.resets.Add(1) }
