package gateway

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
)

// TestRefusedAPICallsAreSeen: each is counted, and the log says so without being
// filled, and without the keys (finding L10).
func TestRefusedAPICallsAreSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		reg := prometheus.NewRegistry()
		g := &Gateway{log: slog.New(slog.NewTextHandler(&log, nil)), metrics: newMetrics(reg, func() int { return 0 })}
		g.cfg.APIKey = strings.Repeat("k", minAPIKey)
		quietGin()
		e := gin.New()
		e.GET("/v1/nodes", g.authorize)
		for i := range 100 {
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/nodes", nil)
			r.Header.Set("Authorization", fmt.Sprintf("Bearer guess-%d", i))
			e.ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized {
				t.Fatalf("status %d", w.Code)
			}
			time.Sleep(200 * time.Millisecond)
		}
		if got := counted(t, reg, "gateway_api_unauthorized_total"); got != 100 {
			t.Errorf("counted %v", got)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 || !strings.Contains(log.String(), "calls=50") || strings.Contains(log.String(), "guess") {
			t.Errorf("logged:\n%s", &log)
		}
	})
}

// counted returns a counter: one without labels, or with one of this value.
func counted(t *testing.T, reg *prometheus.Registry, name string, label ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (len(label) == 0 || m.GetLabel()[0].GetValue() == label[0]) {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Errorf("there is no %s", name)
	return 0
}

// TestRefusedHandshakesAreSeen: a node that has no memory for more clients, or goes,
// counts those that it refuses, and warns of the first.
func TestRefusedHandshakesAreSeen(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		reg := prometheus.NewRegistry()
		c := connOn(t, shardOfTest(t), nullConn{f: null}, 1<<20)
		g := c.gw
		g.log, g.metrics = slog.New(slog.NewTextHandler(&log, nil)), newMetrics(reg, func() int { return 0 })
		public, err := g.publicHandler(nil)
		if err != nil {
			t.Fatal(err)
		}
		refused := func() {
			t.Helper()
			w := httptest.NewRecorder()
			public.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ws", nil))
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Fatalf("status %d, %v", w.Code, w.Header())
			}
		}
		c.socket.Charge(int(g.budget.Limit() * 6 / 10)) // outboxes may hold five eighths
		for range 100 {
			refused()
			time.Sleep(time.Second)
		}
		if got := counted(t, reg, "gateway_handshakes_refused_total", "overloaded"); got != 100 {
			t.Errorf("counted %v", got)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "handshakes=60") {
			t.Errorf("logged:\n%s", &log)
		}
		g.phase.Store(int32(phaseRefusing))
		refused()
		if got := counted(t, reg, "gateway_handshakes_refused_total", "drain"); got != 1 {
			t.Errorf("counted %v while it goes", got)
		}
	})
}
