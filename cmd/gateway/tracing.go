package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// tracingConfig says where traces go. The SDK's variables for what describes the
// process (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) count as well.
type tracingConfig struct {
	Endpoint string   `config:"endpoint" help:"URL of an OpenTelemetry collector (OTLP over HTTP) that traces of messages are sent to; none: no traces"`
	Sample   float64  `config:"sample" help:"part of the messages that is traced, 0 to 1, unless the publisher's own trace decides"`
	Headers  []string `config:"headers,secret" help:"headers for the collector, as name=value"`
}

func (c tracingConfig) validate() error {
	var errs []error
	if u, err := url.Parse(c.Endpoint); c.Endpoint != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		errs = append(errs, fmt.Errorf("tracing.endpoint: %s is not a URL such as http://127.0.0.1:4318", quote(c.Endpoint)))
	}
	if c.Sample < 0 || c.Sample > 1 {
		errs = append(errs, fmt.Errorf("tracing.sample: %v is not between 0 and 1", c.Sample))
	}
	if _, err := c.headers(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// headers returns the headers for the collector. An error repeats none of them.
func (c tracingConfig) headers() (http.Header, error) {
	headers := make(http.Header)
	for i, h := range c.Headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" || strings.ContainsAny(name, " \t\r\n:") || strings.ContainsAny(value, "\r\n") {
			return nil, fmt.Errorf("tracing.headers: the entry %d is not name=value", i+1)
		}
		headers.Set(name, value)
	}
	return headers, nil
}

// tracingTimeout is what sending the last traces may take when a node stops.
const tracingTimeout = 2 * time.Second

// startTracing returns a tracer, whose spans go to the collector, and what runs until
// the last are to be sent, and sends them. Without a collector the tracer is nil.
func startTracing(cfg *config, b build, logger *slog.Logger) (tracer trace.Tracer, run func(context.Context) error, err error) {
	if cfg.Tracing.Endpoint == "" {
		return nil, idle, nil
	}
	ctx := context.Background()
	address, err := url.JoinPath(cfg.Tracing.Endpoint, "v1", "traces")
	if err != nil {
		return nil, nil, fmt.Errorf("tracing.endpoint: %w", err)
	}
	headers, err := cfg.Tracing.headers()
	if err != nil {
		return nil, nil, err
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "gateway"), attribute.String("service.version", b.version),
		attribute.String("service.instance.id", cfg.NodeName),
	), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, nil, fmt.Errorf("tracing: %w", err)
	}
	otel.SetErrorHandler(newTracingErrors(logger))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(newOTLPExporter(address, headers)), sdk.WithResource(about),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(cfg.Tracing.Sample))))
	run = func(ctx context.Context) error {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracingTimeout)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			logger.Warn("traces not sent", "error", err)
		}
		return nil
	}
	return provider.Tracer("wssgateway"), run, nil
}

// idle does nothing until it is to end.
func idle(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// tracingErrors logs what goes wrong with traces, once a minute: a collector that
// is away is no reason to fill the log.
type tracingErrors struct {
	log *slog.Logger

	mu    sync.Mutex // guards what follows
	until time.Time
}

func newTracingErrors(logger *slog.Logger) *tracingErrors { return &tracingErrors{log: logger} }

// Handle implements otel.ErrorHandler.
func (t *tracingErrors) Handle(err error) {
	const every = time.Minute
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Now().Before(t.until) {
		return
	}
	t.until = time.Now().Add(every)
	t.log.Warn("traces not sent", "error", err)
}
