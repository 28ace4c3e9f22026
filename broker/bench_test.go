package broker

import (
	"fmt"
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
	eventually(b, "all is delivered", func() bool { return sink.messages.Load() == toRoom0.Load() })
	if resets := sink.resets.Load(); resets > 0 {
		b.Errorf("%d resets", resets)
	}
}

// counter is a Sink that only counts.
type counter struct{ messages, resets atomic.Int64 }

func (c *counter) Deliver(Message) { c.messages.Add(1) }
func (c *counter) Reset(ID)        { c.resets.Add(1) }
