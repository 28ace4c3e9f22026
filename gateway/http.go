package gateway

import (
	"errors"
	"net/http"
	"net/http/pprof"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"wssgateway/gateway/wire"
)

// quietGin stops gin from printing its routes. The mode is global to gin.
var quietGin = sync.OnceFunc(func() { gin.SetMode(gin.ReleaseMode) })

// engine returns a router with what both listeners have.
func (g *Gateway) engine() (*gin.Engine, error) {
	quietGin()
	e := gin.New()
	// Of what a proxy says of its client, one header is believed: with more, a client
	// could send the one that the proxy does not overwrite.
	e.RemoteIPHeaders = []string{"X-Forwarded-For"}
	e.UseEscapedPath, e.UnescapePathValues = true, false // a user's name may have a slash: unescapePath
	e.RedirectTrailingSlash = false                      // it would believe X-Forwarded-Prefix
	e.HandleMethodNotAllowed = true                      // with Allow, which gin sets
	if err := e.SetTrustedProxies(g.cfg.TrustedProxies); err != nil {
		return nil, err
	}
	// Of what a proxy says of its client, one header is believed: with more, a client
	// could send the one that the proxy does not overwrite.
	e.RemoteIPHeaders = []string{"X-Forwarded-For"}
	e.Use(g.count, gin.CustomRecoveryWithWriter(nil, g.recovered), refuseBody, unescapePath)
	if g.cfg.Dev {
		e.Use(g.loopbackOnly)
	}
	probes := []string{http.MethodGet, http.MethodHead} // some balancers ask with HEAD
	e.Match(probes, "/healthz", func(gc *gin.Context) { gc.String(http.StatusOK, "ok\n") })
	e.Match(probes, "/readyz", g.readyz)
	e.NoRoute(func(gc *gin.Context) { problem(gc, http.StatusNotFound, wire.NotFound, "no such endpoint") })
	e.NoMethod(func(gc *gin.Context) {
		problem(gc, http.StatusMethodNotAllowed, wire.NotFound, "not with this method: see Allow")
	})
	return e, nil
}

func (g *Gateway) publicHandler(console http.Handler) (http.Handler, error) {
	e, err := g.engine()
	if err != nil {
		return nil, err
	}
	e.GET("/ws", g.countHandshake, g.accept)
	if console != nil {
		e.NoRoute(gin.WrapH(console))
	}
	return e, nil
}

func (g *Gateway) adminHandler(reg *prometheus.Registry) (http.Handler, error) {
	e, err := g.engine()
	if err != nil {
		return nil, err
	}
	e.GET("/metrics", gin.WrapH(promhttp.HandlerFor(reg, promhttp.HandlerOpts{})))
	if g.cfg.Pprof {
		e.GET("/debug/pprof/*name", servePprof)
	}
	if g.cfg.APIKey != "" {
		g.routeAPI(e.Group(strings.TrimSuffix(apiPrefix, "/"), g.authorize))
	}
	return e, nil
}

// apiPrefix begins the paths of the server API, whose calls may have a body.
const apiPrefix = "/v1/"

// refuseBody refuses requests with a body where nobody reads one. Else net/http
// would wait for it: to have it out of the way before it answers, or upgrades.
func refuseBody(gc *gin.Context) {
	if gc.Request.ContentLength == 0 || strings.HasPrefix(gc.FullPath(), apiPrefix) {
		return
	}
	dropBody(gc)
	if gc.FullPath() != "" { // else it is refused for its path, or its method
		problem(gc, http.StatusRequestEntityTooLarge, wire.TooLarge, "a request has no body here")
	}
}

// dropBody has the connection closed after the answer, without waiting for what
// has not come of the request's body.
func dropBody(gc *gin.Context) {
	gc.Header("Connection", "close")
	// One that cannot have deadlines is not a network connection.
	_ = http.NewResponseController(gc.Writer).SetReadDeadline(time.Unix(1, 0))
}

// unescapePath unescapes what the path names. Gin itself would take a plus sign
// for a space, which it is in a query string only.
func unescapePath(gc *gin.Context) {
	for i := range gc.Params {
		if value, err := url.PathUnescape(gc.Params[i].Value); err == nil {
			gc.Params[i].Value = value
		}
	}
}

// readyPatience is how long Redis may be away before the node is not ready: a
// failover should not empty every node at once.
const readyPatience = 5 * time.Second

var errDraining = errors.New("draining")

// Ready returns nil if the node should get new connections: it is not draining,
// and Redis answers and delivers.
func (g *Gateway) Ready() error {
	if g.draining() {
		return errDraining
	}
	err := g.broker.Ready(readyPatience)
	if err != nil {
		if trouble := g.trouble(); trouble != nil {
			return trouble
		}
	}
	return err
}

func (g *Gateway) readyz(gc *gin.Context) {
	if err := g.Ready(); err != nil {
		gc.String(http.StatusServiceUnavailable, "not ready: %v\n", err)
		return
	}
	gc.String(http.StatusOK, "ready\n")
}

// count counts every request by its route, never by what a client may choose.
func (g *Gateway) count(gc *gin.Context) {
	gc.Next()
	endpoint := gc.FullPath()
	if endpoint == "" {
		endpoint = "other"
	}
	g.metrics.http.WithLabelValues(knownMethod(gc.Request.Method), endpoint, strconv.Itoa(gc.Writer.Status())).Inc()
}

func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

func (g *Gateway) countHandshake(gc *gin.Context) {
	gc.Next()
	g.metrics.handshakes.WithLabelValues(strconv.Itoa(gc.Writer.Status())).Inc()
}

// recovered answers for a handler that panicked.
func (g *Gateway) recovered(gc *gin.Context, cause any) {
	g.log.Error("handler panicked", "endpoint", gc.FullPath(), "panic", cause)
	problem(gc, http.StatusInternalServerError, wire.Internal, "internal error")
}

// servePprof serves profiles; not the command line, which may hold secrets.
func servePprof(gc *gin.Context) {
	handlers := map[string]http.HandlerFunc{"/profile": pprof.Profile, "/symbol": pprof.Symbol, "/trace": pprof.Trace}
	h, ok := handlers[gc.Param("name")]
	if !ok {
		h = pprof.Index
	}
	h(gc.Writer, gc.Request)
}
