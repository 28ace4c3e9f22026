package client

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"wssgateway/gateway/wire"
)

// Error is what the gateway answers to a request that failed.
type Error struct {
	Code       string // bad_request, forbidden, …
	Message    string
	RetryAfter time.Duration // 0 if nothing was said
}

func (e *Error) Error() string { return "client: " + e.Code + ": " + e.Message }

// CloseError is a connection that the gateway closed.
type CloseError struct {
	Code   int // RFC 6455, section 7.4, and those of the protocol
	Reason string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("client: closed by the gateway with %d: %s", e.Code, e.Reason)
}

// final reports whether the client is not to connect again.
func (e *CloseError) final() bool {
	switch wire.CloseCode(e.Code) {
	case wire.ClosePolicy, wire.CloseMoved, wire.CloseDisconnected:
		return true
	}
	return false
}

// RefusedError is a handshake that was refused.
type RefusedError struct {
	Status     int // HTTP
	RetryAfter time.Duration
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("client: handshake refused: %d %s", e.Status, http.StatusText(e.Status))
}

// final reports whether another attempt would fare no better.
func (e *RefusedError) final() bool {
	return e.Status == http.StatusBadRequest || e.Status == http.StatusForbidden || e.Status == http.StatusNotFound
}

var (
	// ErrLost is the end of a request that was sent on a connection which was
	// lost before the answer came, and which must not be repeated.
	ErrLost = errors.New("client: connection lost before the answer")
	// ErrStopped is the end of a request when Run has returned.
	ErrStopped = errors.New("client: not running any more")

	errSilent = errors.New("client: the gateway is silent")
)

// refused returns what a handshake's response says.
func refused(resp *http.Response, err error) error {
	if resp == nil || resp.StatusCode == http.StatusSwitchingProtocols {
		return fmt.Errorf("client: connect: %w", err)
	}
	e := &RefusedError{Status: resp.StatusCode}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

// ended returns why a connection could not be read any more.
func ended(err error) error {
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		return &CloseError{int(closed.Code), closed.Reason}
	}
	return fmt.Errorf("client: connection lost: %w", err)
}

// isFinal reports whether an error ends Run.
func isFinal(err error) bool {
	var f interface{ final() bool }
	return errors.As(err, &f) && f.final()
}

// refusesToken reports whether an error is about the token.
func refusesToken(err error) bool {
	var closed *CloseError
	var refused *RefusedError
	return errors.As(err, &closed) && wire.CloseCode(closed.Code) == wire.CloseToken ||
		errors.As(err, &refused) && refused.Status == http.StatusUnauthorized
}
