package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"wssgateway/gateway/wire"
)

// routeAPI wires the server API, which backends call.
func (g *Gateway) routeAPI(r *gin.RouterGroup) {
	r.POST("/publish", g.apiPublish)
	r.GET("/users/:user", g.apiUser)
	r.DELETE("/users/:user/sessions", g.apiDisconnect)
	r.DELETE("/users/:user/sessions/:session", g.apiDisconnect)
	r.GET("/nodes", g.apiNodes)
	r.POST("/nodes/:node/rebalance", g.apiRebalance)
}

// refusalsEvery is how often calls that were refused are logged at most: whoever tries
// keys must not fill the log, and should be seen in it.
const refusalsEvery = 10 * time.Second

// authorize lets calls through that have the API key. It takes the same time
// whatever the key, so that it cannot be guessed piece by piece.
func (g *Gateway) authorize(gc *gin.Context) {
	key := bearer(gc.GetHeader("Authorization"))
	got, want := sha256.Sum256([]byte(key)), sha256.Sum256([]byte(g.cfg.APIKey))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		g.metrics.denied.Inc()
		if calls, due := g.refusals.add(time.Now(), refusalsEvery); due {
			g.log.Warn("API calls with a missing or wrong key", "calls", calls, "last_ip", gc.ClientIP(), "last_endpoint", gc.FullPath())
		}
		gc.Header("WWW-Authenticate", "Bearer")
		if gc.Request.ContentLength != 0 {
			dropBody(gc) // nobody is waited for who may not call
		}
		problem(gc, http.StatusUnauthorized, wire.Unauthorized, "the API key is missing or wrong")
	}
}

// problemOf returns the problem document for a mistake.
func problemOf(err error) problemDocument {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return newProblem(statusOf(e.Code), e.Code, e.Message)
	}
	return newProblem(http.StatusInternalServerError, wire.Internal, "internal error")
}

// unavailable answers a call for which Redis was needed.
func (g *Gateway) unavailable(gc *gin.Context, err error) {
	g.log.Debug("redis did not answer", "endpoint", gc.FullPath(), "error", err)
	problem(gc, http.StatusServiceUnavailable, wire.Unavailable, "redis is temporarily unavailable; try again")
}
