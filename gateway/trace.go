package gateway

import (
	"context"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"wssgateway/broker"
)

// tracing follows messages on their way: from the call that publishes one, over
// Redis, to the last write of each node that delivers it. The context of a trace
// that is sampled travels in the message itself. nil is off, and costs nothing.
type tracing struct{ tracer trace.Tracer }

func newTracing(tracer trace.Tracer) *tracing {
	if tracer == nil {
		return nil
	}
	return &tracing{tracer}
}

// traceContext reads and writes the header traceparent (W3C Trace Context).
var traceContext propagation.TraceContext

// serve begins the span of an HTTP call, in the trace of its caller if it has one,
// and returns its context and what ends it with the status of the answer.
func (t *tracing) serve(name string, header http.Header) (trace.SpanContext, func(status int)) {
	if t == nil {
		return trace.SpanContext{}, func(int) {}
	}
	ctx := traceContext.Extract(context.Background(), propagation.HeaderCarrier(header))
	_, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
	return span.SpanContext(), func(status int) {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
		span.End()
	}
}

// publish begins the span of publishing m, has m carry it if it is sampled, and
// returns what ends it.
func (t *tracing) publish(channel string, m *message) func(broker.ID, error) {
	if t == nil {
		return func(broker.ID, error) {}
	}
	ctx, span := t.tracer.Start(trace.ContextWithSpanContext(context.Background(), m.parent), "publish",
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(destination(channel)...))
	if span.SpanContext().IsSampled() {
		carrier := propagation.MapCarrier{}
		traceContext.Inject(ctx, carrier)
		m.traceparent = carrier.Get("traceparent")
	}
	return func(id broker.ID, err error) {
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, "not published")
		} else if !id.IsZero() {
			span.SetAttributes(attribute.String("messaging.message.id", id.String()))
		}
		span.End()
	}
}

// traceparentField is how a payload that carries a trace begins, after its kind.
const traceparentField = `,"traceparent":"`

// traced is a message that is followed, on its way through this node.
type traced struct {
	parent   string    // traceparent
	received time.Time // from Redis
}

// receive returns what to follow of a payload that has come, nil for nothing.
func (t *tracing) receive(payload string) *traced {
	if t == nil || len(payload) == 0 || !strings.HasPrefix(payload[1:], traceparentField) {
		return nil
	}
	parent, _, _ := strings.Cut(payload[1+len(traceparentField):], `"`)
	return &traced{parent, time.Now()}
}

// delivered makes the spans of the messages of a round that a shard has written to
// its connections, each from when Redis stored it.
func (t *tracing) delivered(r *round) {
	if t == nil || r.deliveries == 0 {
		return
	}
	for i := range r.items {
		if it := &r.items[i]; it.traced != nil {
			t.deliver(it, r)
		}
	}
}

func (t *tracing) deliver(it *item, r *round) {
	begin := it.at // an estimate, as Redis has a clock of its own
	if it.traced.received.Before(begin) {
		begin = it.traced.received
	}
	ctx := traceContext.Extract(context.Background(), propagation.MapCarrier{"traceparent": it.traced.parent})
	_, span := t.tracer.Start(ctx, "deliver", trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithTimestamp(begin), trace.WithAttributes(destination(it.channel.name)...))
	span.AddEvent("received from Redis", trace.WithTimestamp(it.traced.received))
	span.SetAttributes(attribute.String("messaging.message.id", it.id.String()),
		attribute.Int("gateway.round.messages", len(r.items)), attribute.Int("gateway.round.deliveries", r.deliveries))
	span.End()
}

// destination describes a channel as OpenTelemetry's conventions have it.
func destination(channel string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "wssgateway"), attribute.String("messaging.destination.name", channel),
	}
}
