package session_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
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
			"gateway_nodes_lost_total 0",
			"gateway_session_write_errors_total 0",
			"gateway_sessions 1",
			"gateway_sessions_claimed_total error 0",
			"gateway_sessions_claimed_total limit 1",
			"gateway_sessions_claimed_total new 1",
			"gateway_sessions_claimed_total resumed 1",
			"gateway_sessions_gone_total 0",
			"gateway_sessions_repaired_total 0",
		})
	})
}

// TestNodesThatDieAreCounted: once, whoever sweeps; and not those that stop.
func TestNodesThatDieAreCounted(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		b, z := prometheus.NewPedanticRegistry(), prometheus.NewPedanticRegistry()
		dies := c.start("dies")
		stops := c.startWith(session.Config{Node: "stops", Registerer: b})
		c.startWith(session.Config{Node: "stays", Registerer: z})
		dies.claim(alice(""))
		pass(5 * time.Second)
		equal(t, "while all live", lost(t, b)+lost(t, z), 0)
		dies.link.cut()
		pass(20 * time.Second)
		equal(t, "when one has died", lost(t, b)+lost(t, z), 1)
		stops.stop()
		pass(20 * time.Second)
		equal(t, "when another has stopped", lost(t, b)+lost(t, z), 1)
		dies.link.mend()
		pass(20 * time.Second)
		equal(t, "when the first is back", lost(t, b)+lost(t, z), 1)
	})
}

// lost returns how many nodes a registry has seen die.
func lost(t *testing.T, reg *prometheus.Registry) int {
	t.Helper()
	for _, line := range gather(t, reg) {
		if n, ok := strings.CutPrefix(line, "gateway_nodes_lost_total "); ok {
			i, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			return i
		}
	}
	t.Fatal("not counted")
	return 0
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
