package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// otlpExporter sends spans to a collector: OTLP 1.x over HTTP, as JSON
// (opentelemetry.io/docs/specs/otlp). It is our own since the SDK's brings gRPC into
// every process, 15 MB of program and 9 MB of memory, traces or not. What the
// collector does not take is dropped: traces are samples.
type otlpExporter struct {
	url     string
	headers http.Header
	client  *http.Client
}

// exportTimeout is what a collector has to take a batch.
const exportTimeout = 10 * time.Second

func newOTLPExporter(url string, headers http.Header) *otlpExporter {
	return &otlpExporter{url, headers, &http.Client{
		Timeout: exportTimeout,
		// Headers may be secrets, and are for the collector alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// ExportSpans implements sdk.SpanExporter.
func (e *otlpExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if len(spans) == 0 {
		return nil
	}
	body, err := json.Marshal(newExport(spans))
	if err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	req.Header = e.headers.Clone()
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("tracing: %d spans dropped: %w", len(spans), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // as far as it came
		return fmt.Errorf("tracing: %d spans dropped: %s: %s", len(spans), resp.Status, bytes.TrimSpace(said))
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection is used again
	return err
}

// Shutdown implements sdk.SpanExporter.
func (e *otlpExporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// What follows is ExportTraceServiceRequest, as far as it is needed.
type (
	export struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   attributed   `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	attributed struct {
		Attributes []keyValue `json:"attributes,omitempty"`
	}
	scopeSpans struct {
		Scope struct {
			Name string `json:"name"`
		} `json:"scope"`
		Spans []otlpSpan `json:"spans"`
	}
	otlpSpan struct {
		TraceID  string      `json:"traceId"`
		SpanID   string      `json:"spanId"`
		ParentID string      `json:"parentSpanId,omitempty"`
		State    string      `json:"traceState,omitempty"`
		Flags    uint32      `json:"flags"`
		Name     string      `json:"name"`
		Kind     int         `json:"kind"`
		Start    string      `json:"startTimeUnixNano"`
		End      string      `json:"endTimeUnixNano"`
		Events   []otlpEvent `json:"events,omitempty"`
		Status   otlpStatus  `json:"status"`
		attributed
	}
	otlpEvent struct {
		Time string `json:"timeUnixNano"`
		Name string `json:"name"`
		attributed
	}
	otlpStatus struct {
		Code    int    `json:"code,omitempty"`
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string         `json:"key"`
		Value map[string]any `json:"value"`
	}
)

// newExport makes the request of a batch. All spans of this process have one
// resource and one scope.
func newExport(spans []sdk.ReadOnlySpan) export {
	s := scopeSpans{Spans: make([]otlpSpan, len(spans))}
	s.Scope.Name = spans[0].InstrumentationScope().Name
	for i, span := range spans {
		s.Spans[i] = newOTLPSpan(span)
	}
	return export{[]resourceSpans{{attributed{keyValues(spans[0].Resource().Attributes())}, []scopeSpans{s}}}}
}

// otlpStatusCodes are those of OTLP by those of the API: unset, error, ok.
var otlpStatusCodes = [...]int{0, 2, 1}

func newOTLPSpan(span sdk.ReadOnlySpan) otlpSpan {
	c, status := span.SpanContext(), span.Status()
	s := otlpSpan{
		TraceID: c.TraceID().String(), SpanID: c.SpanID().String(), State: c.TraceState().String(), Flags: uint32(c.TraceFlags()),
		Name: span.Name(), Kind: int(span.SpanKind()), // both count: unspecified, internal, server, client, producer, consumer
		Start: nanos(span.StartTime()), End: nanos(span.EndTime()),
		Status:     otlpStatus{otlpStatusCodes[status.Code], status.Description},
		attributed: attributed{keyValues(span.Attributes())},
	}
	if span.Parent().HasSpanID() {
		s.ParentID = span.Parent().SpanID().String()
	}
	for _, e := range span.Events() {
		s.Events = append(s.Events, otlpEvent{nanos(e.Time), e.Name, attributed{keyValues(e.Attributes)}})
	}
	return s
}

// nanos is a time as protobuf's JSON has a fixed64.
func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func keyValues(list []attribute.KeyValue) []keyValue {
	all := make([]keyValue, len(list))
	for i, a := range list {
		value := map[string]any{"stringValue": a.Value.String()}
		switch a.Value.Type() {
		case attribute.INT64:
			value = map[string]any{"intValue": strconv.FormatInt(a.Value.AsInt64(), 10)}
		case attribute.BOOL:
			value = map[string]any{"boolValue": a.Value.AsBool()}
		case attribute.FLOAT64:
			value = map[string]any{"doubleValue": a.Value.AsFloat64()}
		}
		all[i] = keyValue{string(a.Key), value}
	}
	return all
}
