package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"wssgateway/client"
	"wssgateway/examples/lab"
)

// collector is what takes traces in.
type collector struct {
	mu    sync.Mutex // guards what follows
	spans map[string]collected
	wrong string
}

// collected is a span, with the node that made it.
type collected struct {
	Name, TraceID, SpanID, ParentSpanID string
	Kind                                int
	StartTimeUnixNano, EndTimeUnixNano  string
	Attributes                          []struct {
		Key   string
		Value map[string]any
	}
	node string
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ResourceSpans []struct {
			Resource struct {
				Attributes []struct {
					Key   string
					Value struct{ StringValue string }
				}
			}
			ScopeSpans []struct{ Spans []collected }
		}
	}
	err := json.NewDecoder(r.Body).Decode(&body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("X-Scope") != "lab" || r.Header.Get("Content-Type") != "application/json" {
		c.wrong = fmt.Sprint(err, r.URL, r.Header)
	}
	for _, resource := range body.ResourceSpans {
		node := ""
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.instance.id" {
				node = a.Value.StringValue
			}
		}
		for _, s := range resource.ScopeSpans[0].Spans {
			s.node = node
			c.spans[s.Name] = s
		}
	}
}

// TestTraces follows a message from an HTTP call on one node, over Redis, to its
// delivery by another.
func TestTraces(t *testing.T) {
	c := &collector{spans: make(map[string]collected)}
	server := httptest.NewServer(c)
	defer server.Close()
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50") // ms
	t.Setenv("GATEWAY_TRACING_HEADERS", "X-Scope=lab")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := lab.New(ctx, "tracing: {endpoint: "+server.URL+", sample: 0}")
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		n, err := l.AddNode(name)
		if err == nil {
			err = n.AwaitReady(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	frames := make(chan string, 16)
	subscriber, err := client.New("ws://"+l.Nodes[1].Public+"/ws", client.Options{
		Token: func(context.Context) (string, error) { return lab.Token("alice") },
		Frame: func(frame []byte) {
			if bytes.Contains(frame, []byte(`"type":"message"`)) {
				frames <- string(frame)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = subscriber.Run(ctx) }()
	if err := subscriber.AwaitConnected(ctx); err != nil {
		t.Fatal(err)
	}

	const trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	publishTraced(t, l.Nodes[0], "00-"+strings.Repeat("1", 32)+"-"+caller+"-00", "quiet")
	publishTraced(t, l.Nodes[0], "00-"+trace+"-"+caller+"-01", "followed")
	if quiet := <-frames; !strings.Contains(quiet, "quiet") || strings.Contains(quiet, "traceparent") {
		t.Errorf("a message whose publisher is not sampled: %s", quiet)
	}
	followed := <-frames

	publish, deliver := c.await(t, "publish"), c.await(t, "deliver")
	served := c.await(t, "POST /v1/publish")
	for _, test := range []struct {
		span         collected
		parent, node string
		kind         int
	}{{served, caller, "one", 2}, {publish, served.SpanID, "one", 4}, {deliver, publish.SpanID, "two", 5}} {
		if s := test.span; s.TraceID != trace || s.ParentSpanID != test.parent || s.node != test.node || s.Kind != test.kind ||
			s.StartTimeUnixNano >= s.EndTimeUnixNano || len(s.Attributes) == 0 {
			t.Errorf("got %+v, want %+v", s, test)
		}
	}
	if want := fmt.Sprintf(`"traceparent":"00-%s-%s-01"`, trace, publish.SpanID); !strings.Contains(followed, want) {
		t.Errorf("the frame has no %s: %s", want, followed)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrong != "" {
		t.Errorf("the collector got something else: %s", c.wrong)
	}
}

func publishTraced(t *testing.T, n *lab.Node, traceparent, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.Admin+"/v1/publish",
		strings.NewReader(fmt.Sprintf(`{"to":"alice","data":%q}`, text)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+lab.APIKey)
	req.Header.Set("Traceparent", traceparent)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v: %s: %s", err, resp.Status, body)
	}
}

// await returns a span once it has come.
func (c *collector) await(t *testing.T, name string) collected {
	t.Helper()
	for {
		c.mu.Lock()
		s, ok := c.spans[name]
		c.mu.Unlock()
		if ok {
			return s
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("no span %s", name)
		}
	}
}

func TestACollectorThatIsAwayHarmsNobody(t *testing.T) {
	nobody := freePort(t)
	listen := freePort(t)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	node, admin := startNode(t, "--listen="+listen, "--tracing-endpoint=http://"+nobody, "--tracing-sample=1")
	out, err := gatewayCommand(t, nil, "check", "ws://"+listen+"/ws", "--dev", "--api=http://"+admin).CombinedOutput()
	if err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
	if err := node.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := node.Wait(); err != nil {
		t.Errorf("the node did not stop well: %v", err)
	}
}

// TestRedirectsOfACollectorAreNotFollowed: the headers may hold secrets of any name
// (finding L9).
func TestRedirectsOfACollectorAreNotFollowed(t *testing.T) {
	followed := make(chan *http.Request, 1)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { followed <- r }))
	defer elsewhere.Close()
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	exporter := newOTLPExporter(server.URL, http.Header{"X-Api-Key": {"secret"}})
	err := exporter.ExportSpans(t.Context(), tracetest.SpanStubs{{Name: "publish"}}.Snapshots())
	if err == nil || !strings.Contains(err.Error(), "1 spans dropped: 307") {
		t.Errorf("error %v", err)
	}
	select {
	case r := <-followed:
		t.Errorf("followed, with %v", r.Header)
	default:
	}
}
