package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"wssgateway/gateway/wire"
)

// problemDocument is an error of the HTTP API (RFC 9457).
type problemDocument struct {
	Type   string    `json:"type"`
	Title  string    `json:"title"`
	Status int       `json:"status"`
	Detail string    `json:"detail,omitempty"`
	Code   wire.Code `json:"code"`
}

func newProblem(status int, code wire.Code, detail string) problemDocument {
	return problemDocument{"about:blank", http.StatusText(status), status, detail, code}
}

// problem answers a request with an error, and ends its handling.
func problem(gc *gin.Context, status int, code wire.Code, detail string) {
	gc.Header("Content-Type", "application/problem+json")
	gc.AbortWithStatusJSON(status, newProblem(status, code, detail))
}

// statusOf returns the HTTP status that goes with a code.
func statusOf(code wire.Code) int {
	switch code {
	case wire.BadRequest:
		return http.StatusBadRequest
	case wire.Unauthorized:
		return http.StatusUnauthorized
	case wire.Forbidden:
		return http.StatusForbidden
	case wire.NotFound:
		return http.StatusNotFound
	case wire.TooLarge:
		return http.StatusRequestEntityTooLarge
	case wire.RateLimited, wire.LimitExceeded:
		return http.StatusTooManyRequests
	case wire.Timeout:
		return http.StatusGatewayTimeout
	case wire.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
