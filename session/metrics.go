package session

import "github.com/prometheus/client_golang/prometheus"

// claimResult says how a claim ended.
type claimResult string

const (
	claimNew     claimResult = "new"
	claimResumed claimResult = "resumed"
	claimLimit   claimResult = "limit" // too many connections
	claimError   claimResult = "error" // Redis did not answer
)

// renewal says how a heartbeat ended.
type renewal string

const (
	leaseRenewed  renewal = "renewed"
	leaseAcquired renewal = "acquired" // at the start, or after the lease was lost
	leaseError    renewal = "error"    // Redis did not answer
)

type metrics struct {
	claims      map[claimResult]prometheus.Counter
	renewals    map[renewal]prometheus.Counter
	writeErrors prometheus.Counter
	repaired    prometheus.Counter
	gone        prometheus.Counter
	nodesLost   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, sessions func() int) *metrics {
	held := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gateway_sessions",
		Help: "Sessions connected on this node.",
	}, func() float64 { return float64(sessions()) })
	claims := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gateway_sessions_claimed_total",
		Help: "Sessions asked for by connections, by result.",
	}, []string{"result"})
	renewals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gateway_node_lease_renewals_total",
		Help: "Heartbeats of this node, by result.",
	}, []string{"result"})
	m := &metrics{
		claims:   make(map[claimResult]prometheus.Counter),
		renewals: make(map[renewal]prometheus.Counter),
		writeErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_session_write_errors_total",
			Help: "Writes of a session that failed and are repeated.",
		}),
		repaired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_sessions_repaired_total",
			Help: "Sessions of this node that Redis did not have as they were, found by verification.",
		}),
		gone: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_sessions_gone_total",
			Help: "Sessions that were over and that this node told of: presence and events.",
		}),
		nodesLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_nodes_lost_total",
			Help: "Nodes that died and whose sessions this node has taken care of.",
		}),
	}
	for _, r := range []claimResult{claimNew, claimResumed, claimLimit, claimError} {
		m.claims[r] = claims.WithLabelValues(string(r))
	}
	for _, r := range []renewal{leaseRenewed, leaseAcquired, leaseError} {
		m.renewals[r] = renewals.WithLabelValues(string(r))
	}
	if reg != nil {
		reg.MustRegister(held, claims, renewals, m.writeErrors, m.repaired, m.gone, m.nodesLost)
	}
	return m
}
