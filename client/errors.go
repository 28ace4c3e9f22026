package client

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
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
	// Said is what the gateway has said against the connect request before, or nil.
	Said *Error
}

func (e *CloseError) Error() string {
	if e.Said != nil {
		return fmt.Sprintf("client: %s: %s (closed by the gateway with %d)", e.Said.Code, e.Said.Message, e.Code)
	}
	return fmt.Sprintf("client: closed by the gateway with %d: %s", e.Code, e.Reason)
}

// Unwrap returns Said.
func (e *CloseError) Unwrap() error {
	if e.Said == nil {
		return nil
	}
	return e.Said
}

// busy reports whether the gateway wants to be left alone for a while.
func (e *CloseError) busy() bool {
	code := wire.CloseCode(e.Code)
	return code == wire.CloseOverloaded || code == wire.CloseTooMany
}

// final reports whether the client is not to connect again.
func (e *CloseError) final() bool {
	switch wire.CloseCode(e.Code) {
	case wire.ClosePolicy, wire.CloseMoved, wire.CloseDisconnected:
		return true
	}
	return false
}

// RefusedError is a handshake that was refused, by the gateway or by what is in
// front of it.
type RefusedError struct {
	Status int // HTTP
	// Code is as in Error; "" if the answer is not the gateway's.
	Code string
	// Reason is what the answer says, if that is text.
	Reason     string
	RetryAfter time.Duration
}

func (e *RefusedError) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("client: handshake refused: %d %s", e.Status, http.StatusText(e.Status)))
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
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

	errSilent    = errors.New("client: the gateway is silent")
	errOvertaken = errors.New("client: the session has moved to a connection that this client had given up")
)

// retryAfterMost is the longest Retry-After that counts: more is a mistake, or
// nothing that a client could wait for.
const retryAfterMost = time.Hour

// refused returns why a handshake has failed.
func refused(resp *http.Response, err error) error {
	if resp == nil || resp.StatusCode == http.StatusSwitchingProtocols {
		if failed := (*url.Error)(nil); errors.As(err, &failed) {
			err = failed.Err // without the URL, which may hold a token
		}
		return fmt.Errorf("client: connect: %w", err)
	}
	e := &RefusedError{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	b, _ := io.ReadAll(resp.Body) // what came of it; no more than 1 KiB
	e.Code, e.Reason = reason(resp.Header.Get("Content-Type"), b)
	return e
}

// reason returns what the body of a refusal says: a problem document (RFC 9457), or
// the first line of a text.
func reason(kind string, body []byte) (code, text string) {
	switch kind, _, _ = mime.ParseMediaType(kind); kind { // "" if there is none
	case "application/problem+json":
		var problem struct{ Code, Title, Detail string }
		if json.Unmarshal(body, &problem) != nil {
			return "", ""
		}
		return problem.Code, cmp.Or(problem.Detail, problem.Title)
	case "text/plain", "": // without: Go's server that wants TLS
		line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
		return "", strings.TrimSpace(line)
	}
	return "", ""
}

// retryAfter parses the header of that name (RFC 9110, 10.2.3).
func retryAfter(header string) time.Duration {
	if s, err := strconv.Atoi(header); err == nil {
		return time.Duration(min(max(s, 0), int(retryAfterMost/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(time.Until(at), 0), retryAfterMost)
	}
	return 0
}

// ended returns why a connection could not be read any more.
func ended(err error) error {
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		return &CloseError{Code: int(closed.Code), Reason: closed.Reason}
	}
	return fmt.Errorf("client: connection lost: %w", err)
}

// decides reports whether what one handshake was answered goes for all others.
func decides(err error) bool {
	var refused *RefusedError
	return isFinal(err) || refusesToken(err) || errors.As(err, &refused) && refused.RetryAfter > 0
}

// isFinal reports whether an error ends Run.
func isFinal(err error) bool {
	var f interface{ final() bool }
	return errors.As(err, &f) && f.final()
}

// isMoved reports whether the gateway has closed since the session is on another
// connection.
func isMoved(err error) bool {
	var closed *CloseError
	return errors.As(err, &closed) && wire.CloseCode(closed.Code) == wire.CloseMoved
}

// movesNothing reports whether the gateway has said of a connect request that it was
// refused. What it says of Redis (unavailable) leaves open what was done.
func movesNothing(err error) bool {
	var said *Error
	return errors.As(err, &said) && !passes(said.Code)
}

// refusesToken reports whether an error is about the token.
func refusesToken(err error) bool {
	var closed *CloseError
	var refused *RefusedError
	return errors.As(err, &closed) && wire.CloseCode(closed.Code) == wire.CloseToken ||
		errors.As(err, &refused) && refused.Status == http.StatusUnauthorized
}
