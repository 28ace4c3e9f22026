package broker

import (
	"sync/atomic"
	"time"
)

// clock translates between Redis's clock, which stamps messages, and the
// node's. Its zero value takes them for the same. Safe from several goroutines.
type clock struct{ offset atomic.Int64 } // Redis minus node, in nanoseconds

// observe takes in that Redis said at between sent and received. The mean of
// several keeps one slow answer from showing.
func (c *clock) observe(at, sent, received time.Time) {
	const weight = 8
	seen := at.Sub(sent.Add(received.Sub(sent) / 2))
	old := time.Duration(c.offset.Load())
	if old == 0 || (seen-old).Abs() > time.Second {
		c.offset.Store(int64(seen)) // the first, or a clock was set
		return
	}
	c.offset.Store(int64(old + (seen-old)/weight))
}

func (c *clock) redis(t time.Time) time.Time { return t.Add(time.Duration(c.offset.Load())) }
func (c *clock) local(t time.Time) time.Time { return t.Add(-time.Duration(c.offset.Load())) }
