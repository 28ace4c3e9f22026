package gateway_test

import (
	"net/http"
	"testing"

	"wssgateway/gateway"
)

// TestDevelopmentModeAnswersToLoopbackNamesOnly: a website whose name is made to
// resolve to loopback reads and writes nothing (finding L1).
func TestDevelopmentModeAnswersToLoopbackNamesOnly(t *testing.T) {
	t.Parallel()
	n := startOne(t, func(cfg *gateway.Config) { cfg.Dev = true })
	get := func(url, host string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Authorization", "Bearer "+testAPIKey)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, url := range []string{n.public + "/ws", n.public + "/", n.public + "/readyz", n.api + "/v1/nodes", n.api + "/metrics"} {
		for _, host := range []string{"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example:1", "0.0.0.0"} {
			if status := get(url, host); status != http.StatusForbidden {
				t.Errorf("%s by %s: %d", url, host, status)
			}
		}
		for _, host := range []string{"localhost", "localhost:1", "127.0.0.1:9", "[::1]", "[::1]:8080"} {
			if status := get(url, host); status == http.StatusForbidden {
				t.Errorf("%s by %s: %d", url, host, status)
			}
		}
	}
	if _, resp, err := n.tryDial(t, "access_token="+token("alice"), "Origin", "http://evil.example"); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a website's WebSocket: %v", err)
	}
}
