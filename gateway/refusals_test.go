package gateway

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "gateway_api_unauthorized_total" && f.GetMetric()[0].GetCounter().GetValue() != 100 {
				t.Errorf("counted: %v", f)
			}
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 || !strings.Contains(log.String(), "calls=50") || strings.Contains(log.String(), "guess") {
			t.Errorf("logged:\n%s", &log)
		}
	})
}
