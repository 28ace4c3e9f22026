package gateway

import (
	"net"
	"net/http"

	"github.com/gin-gonic/gin"

	"wssgateway/gateway/wire"
)

// IsLoopback reports whether addr, a host and a port, is reachable from this host
// only. Names other than localhost are not resolved: what they mean can change.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// loopbackOnly refuses requests by another name than a loopback one, in
// development mode. Listening on loopback is not enough: a website whose name is
// made to resolve to 127.0.0.1 (DNS rebinding) is of one origin with the node, and
// everybody knows the secrets.
func (g *Gateway) loopbackOnly(gc *gin.Context) {
	host := gc.Request.Host
	if _, _, err := net.SplitHostPort(host); err != nil {
		host += ":80"
	}
	if !IsLoopback(host) {
		problem(gc, http.StatusForbidden, wire.Forbidden, "development mode answers only to localhost")
	}
}
