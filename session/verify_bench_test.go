package session

import (
	"context"
	"strconv"
	"testing"
	"time"

	"wssgateway/broker/redistest"
)

// BenchmarkVerifyHeld is a whole round of verifying 10,000 sessions that Redis has as
// they are, without its pauses.
func BenchmarkVerifyHeld(b *testing.B) {
	const sessions = 10_000
	ctx, stop := context.WithCancel(b.Context())
	r := New(redistest.Start(b).Client(b), Config{Node: "a", Prefix: "gw:", ResumeWindow: time.Minute})
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	for i := range sessions {
		c := Claim{User: "user" + strconv.Itoa(i), IP: "192.0.2.1"}
		claimed, err := r.Claim(ctx, c)
		if err != nil {
			b.Fatal(err)
		}
		claimed.Session.SetChannels([]string{"room:42", "user:" + c.User})
	}
	for r.unfinished() {
		time.Sleep(time.Millisecond)
	}
	for b.Loop() {
		for step := range verifySteps {
			r.verifyStep(ctx, step, 0)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/sessions, "ns/session")
	stop()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
