package gateway

import (
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// TestDeliveriesEndAfterTheyBegin: also where the node takes Redis's clock for one that
// is ahead of its own.
func TestDeliveriesEndAfterTheyBegin(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracing := newTracing(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)).Tracer("test"))
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	received := time.Now()
	for _, stored := range []time.Time{received.Add(-time.Second), received.Add(time.Second)} {
		it := item{channel: &channel{name: "room:1"}, at: stored, traced: &traced{parent, received}}
		tracing.delivered(&round{items: []item{it}, deliveries: 1})
	}
	for i, span := range spans.Ended() {
		if begin, end := span.StartTime(), span.EndTime(); begin.After(received) || !end.After(begin) {
			t.Errorf("span %d from %v to %v", i, begin.Sub(received), end.Sub(received))
		}
	}
	if n := len(spans.Ended()); n != 2 {
		t.Errorf("%d spans", n)
	}
}
