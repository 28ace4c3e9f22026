package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wssgateway/gateway/transport"
	"wssgateway/gateway/wire"
)

// metrics are the gateway's own. What lies in a hot path is resolved here, once.
type metrics struct {
	channels   prometheus.Gauge
	draining   prometheus.Gauge
	requests   prometheus.Counter
	errors     map[wire.Code]prometheus.Counter
	bytesIn    prometheus.Counter
	bytesOut   prometheus.Counter
	deflated   prometheus.Counter
	messages   prometheus.Counter
	deliveries prometheus.Counter
	latency    prometheus.Histogram
	malformed  prometheus.Counter
	ended      map[cause]prometheus.Counter
	goaways    map[goawayReason]prometheus.Counter
	drained    map[drainResult]prometheus.Counter
	presence   map[presenceChange]prometheus.Counter
	calls      map[callResult]prometheus.Counter
	unwritten  prometheus.Gauge
	denied     prometheus.Counter
	replayed   prometheus.Counter
	replayGaps prometheus.Counter
	recovered  prometheus.Counter
	lost       prometheus.Counter
	handshakes *prometheus.CounterVec
	refused    map[cause]prometheus.Counter // handshakes
	http       *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, connections func() int) *metrics {
	f := factory{reg}
	connectionsGauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gateway_connections", Help: "WebSocket connections of this node.",
	}, func() float64 { return float64(connections()) })
	m := &metrics{
		ended: make(map[cause]prometheus.Counter), refused: make(map[cause]prometheus.Counter),
		channels: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gateway_channels", Help: "Channels that connections of this node are subscribed to.",
		}),
		draining: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gateway_draining", Help: "1 from when the node takes leave, before that 0.",
		}),
		requests:   f.counter("gateway_requests_total", "Requests from clients."),
		bytesIn:    f.counter("gateway_received_bytes_total", "Payload bytes of the messages from clients."),
		bytesOut:   f.counter("gateway_sent_bytes_total", "Bytes of the frames to clients."),
		deflated:   f.counter("gateway_compressed_messages_total", "Messages that were compressed, once for all who wanted them so."),
		messages:   f.counter("gateway_messages_total", "Messages of channels that reached this node and had receivers here."),
		deliveries: f.counter("gateway_deliveries_total", "Messages handed to connections, replays apart."),
		malformed:  f.counter("gateway_messages_malformed_total", "Messages in Redis that could not be read, and were dropped."),
		denied:     f.counter("gateway_api_unauthorized_total", "Calls of the server API with a missing or wrong key."),
		replayed:   f.counter("gateway_replayed_total", "Messages sent in replays."),
		replayGaps: f.counter("gateway_replay_gaps_total", "Replays in which messages were gone, and a reset was sent."),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "gateway_delivery_seconds",
			Help:    "Time from Redis storing a message to the last write to a socket, per message and shard.",
			Buckets: []float64{.0005, .001, .002, .003, .005, .0075, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		handshakes: f.vec("gateway_handshakes_total", "WebSocket handshakes, by HTTP status.", "status"),
		http:       f.vec("http_requests_total", "HTTP requests, handshakes among them.", "method", "endpoint", "status"),
	}
	recoveries := f.vec("gateway_recoveries_total", "Positions that clients came back with: recovered, or part of what they missed is gone.", "result")
	m.recovered, m.lost = recoveries.WithLabelValues("recovered"), recoveries.WithLabelValues("lost")
	m.goaways = byLabel(f.vec("gateway_goaways_total", "Clients that were asked to move, by reason.", "reason"),
		goawayDrain, goawayRebalance)
	m.drained = byLabel(f.vec("gateway_drained_total", "Connections of a drain that is over, by what became of them.", "result"),
		drainMoved, drainClosed, drainCut)
	m.presence = byLabel(f.vec("gateway_presence_changes_total", "Users that came to a channel or left it, as this node wrote.", "change"),
		presenceJoin, presenceLeave)
	m.calls = byLabel(f.vec("gateway_calls_total", "Calls of clients to backends, by what became of them.", "result"),
		callReplied, callOneWay, callTimeout, callFull, callRefused, callUnavailable, callIgnored)
	m.unwritten = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gateway_presence_unwritten", Help: "Changes of presence that Redis does not have yet.",
	})
	ended := f.vec("gateway_disconnects_total", "Connections that ended, by cause.", "cause")
	for _, why := range causes() {
		m.ended[why] = ended.WithLabelValues(why.Label)
	}
	refused := f.vec("gateway_handshakes_refused_total", "WebSocket handshakes refused with 503, by cause.", "cause")
	for _, why := range []cause{causeDrain, transport.Overloaded} {
		m.refused[why] = refused.WithLabelValues(why.Label)
	}
	m.errors = byLabel(f.vec("gateway_request_errors_total", "Requests answered with an error, by code.", "code"),
		wire.BadRequest, wire.Unauthorized, wire.Forbidden, wire.NotFound, wire.TooLarge, wire.RateLimited,
		wire.LimitExceeded, wire.Timeout, wire.Unavailable, wire.Internal)
	reg.MustRegister(connectionsGauge, m.draining, m.channels, m.latency, m.unwritten)
	return m
}

// registerReady makes what /readyz says a metric.
func registerReady(reg prometheus.Registerer, ready func() error) {
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gateway_ready", Help: "1 while the node is ready, as /readyz says, else 0.",
	}, func() float64 {
		if ready() != nil {
			return 0
		}
		return 1
	}))
}

// factory makes metrics that are registered.
type factory struct{ reg prometheus.Registerer }

func (f factory) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	f.reg.MustRegister(c)
	return c
}

func (f factory) vec(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	f.reg.MustRegister(v)
	return v
}

// byLabel resolves the counters of a closed set of labels.
func byLabel[L ~string](v *prometheus.CounterVec, labels ...L) map[L]prometheus.Counter {
	m := make(map[L]prometheus.Counter, len(labels))
	for _, l := range labels {
		m[l] = v.WithLabelValues(string(l))
	}
	return m
}

// recoveries returns the counter for a client that came back with a position.
func (m *metrics) recoveries(recovered bool) prometheus.Counter {
	if recovered {
		return m.recovered
	}
	return m.lost
}

// delivered counts a round's items of one channel: how often one was handed to a
// connection, and the bytes that all got.
func (m *metrics) delivered(items []item, deliveries, bytes int) {
	if deliveries == 0 {
		return
	}
	m.deliveries.Add(float64(deliveries))
	m.bytesOut.Add(float64(bytes))
	m.messages.Add(float64(len(items)))
	now := time.Now()
	for i := range items {
		if at := items[i].at; !at.IsZero() {
			m.latency.Observe(max(0, now.Sub(at).Seconds()))
		}
	}
}
