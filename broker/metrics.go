package broker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// repairReason says why a channel was read again from its stream.
type repairReason string

const (
	repairGap     repairReason = "gap"     // a message did not follow on the one before
	repairSuspect repairReason = "suspect" // a comparison with Redis found a difference
)

// reopenReason says why a link was opened again.
type reopenReason string

const (
	reopenLost    reopenReason = "lost"    // the connection failed
	reopenSilent  reopenReason = "silent"  // nothing came, not even the probe
	reopenRevoked reopenReason = "revoked" // Redis took a subscription away
)

type metrics struct {
	publishSeconds *prometheus.HistogramVec
	published200   prometheus.Observer
	publishedError prometheus.Observer
	repairs        map[repairReason]prometheus.Counter
	reopenings     map[reopenReason]prometheus.Counter
	resets         prometheus.Counter
	links          prometheus.Gauge
	malformed      prometheus.Counter
	losses         prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		publishSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "gateway_publish_seconds",
			Help:    "Time from the call to Redis's answer, by result.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"result"}),
		resets: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_channel_resets_total",
			Help: "Gaps on live channels that could not be filled and were told to their subscribers.",
		}),
		links: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gateway_links_up",
			Help: "Pub/sub links to Redis that are open and subscribed.",
		}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_link_malformed_total",
			Help: "Pub/sub payloads that were dropped because they could not be read.",
		}),
		losses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_redis_data_losses_total",
			Help: "Times that the data in Redis, or the end of them, were found gone.",
		}),
	}
	m.published200 = m.publishSeconds.WithLabelValues("ok")
	m.publishedError = m.publishSeconds.WithLabelValues("error")
	m.repairs = countersBy[repairReason]("gateway_channel_repairs_total", "Channels read again from their stream, by reason.", reg, repairGap, repairSuspect)
	m.reopenings = countersBy[reopenReason]("gateway_link_reopenings_total", "Pub/sub links opened again, by reason.", reg, reopenLost, reopenSilent, reopenRevoked)
	if reg != nil {
		reg.MustRegister(m.publishSeconds, m.resets, m.links, m.malformed, m.losses)
	}
	return m
}

// countersBy makes a counter for each of a closed set of reasons.
func countersBy[R ~string](name, help string, reg prometheus.Registerer, reasons ...R) map[R]prometheus.Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"reason"})
	if reg != nil {
		reg.MustRegister(vec)
	}
	counters := make(map[R]prometheus.Counter, len(reasons))
	for _, r := range reasons {
		counters[r] = vec.WithLabelValues(string(r))
	}
	return counters
}

func (m *metrics) published(d time.Duration, err error) {
	if err != nil {
		m.publishedError.Observe(d.Seconds())
		return
	}
	m.published200.Observe(d.Seconds())
}
