package gateway

import "time"

// limiter lets through rate requests per second, and twice that at once (a token
// bucket). It is owned by the goroutine that reads. Its zero value is full.
type limiter struct {
	used    float64   // of the bucket
	at      time.Time // when used was right
	refused int32     // in a row
	excess  int32     // so many more were refused than let through
}

// maxRefused is how many requests in a row are refused before the client has not
// listened, and maxExcess how many more than are let through: of requests that take
// their time to read one is let through before a hundred are refused.
const (
	maxRefused = 100
	maxExcess  = 1000
)

// flooded reports whether the client has not listened.
func (l *limiter) flooded() bool { return l.refused >= maxRefused || l.excess >= maxExcess }

// allow takes one request in. If it is refused, retry says when one will be let
// through, a millisecond at the least.
func (l *limiter) allow(now time.Time, rate int) (retry time.Duration, ok bool) {
	perSecond := float64(rate)
	burst := 2 * perSecond
	l.used = max(0, l.used-now.Sub(l.at).Seconds()*perSecond)
	l.at = now
	if l.used+1 > burst {
		l.refused++
		l.excess++
		retry = time.Duration((l.used + 1 - burst) / perSecond * float64(time.Second))
		return max(retry, time.Millisecond), false
	}
	l.used++
	l.refused, l.excess = 0, max(0, l.excess-1)
	return 0, true
}
