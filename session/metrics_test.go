package session_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wssgateway/session"
)

func TestMetricsCountWhatHappens(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		reg := prometheus.NewPedanticRegistry()
		a := run(t, (&link{dialer: c.redis.Dial}).client(t), session.Config{Node: "a", Registerer: reg})
		c.nodes = append(c.nodes, a)
		claim := alice("")
		claim.Limit = 1
		h := a.claim(claim)
		_, _ = a.try(claim)
		a.claim(alice(h.Session.ID))
		pass(7 * time.Second)

		equalSlices(t, "metrics", gather(t, reg), []string{
			"gateway_node_lease_renewals_total acquired 1",
			"gateway_node_lease_renewals_total error 0",
			"gateway_node_lease_renewals_total renewed 2",
			"gateway_session_write_errors_total 0",
			"gateway_sessions 1",
			"gateway_sessions_claimed_total error 0",
			"gateway_sessions_claimed_total limit 1",
			"gateway_sessions_claimed_total new 1",
			"gateway_sessions_claimed_total resumed 1",
			"gateway_sessions_gone_total 0",
		})
	})
}

func gather(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetValue()
			}
			lines = append(lines, fmt.Sprintf("%s %v", line, m.GetCounter().GetValue()+m.GetGauge().GetValue()))
		}
	}
	slices.Sort(lines)
	return lines
}
