package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"wssgateway/gateway/wire"
	"wssgateway/session"
)

// routeAPI wires the server API, which backends call.
func (g *Gateway) routeAPI(r *gin.RouterGroup) {
	r.POST("/publish", g.apiPublish)
	r.GET("/users/:user", g.apiUser)
	r.DELETE("/users/:user/sessions", g.apiDisconnect)
	r.DELETE("/users/:user/sessions/:session", g.apiDisconnect)
	r.GET("/nodes", g.apiNodes)
}

// authorize lets calls through that have the API key. It takes the same time
// whatever the key, so that it cannot be guessed piece by piece.
func (g *Gateway) authorize(gc *gin.Context) {
	key := bearer(gc.GetHeader("Authorization"))
	got, want := sha256.Sum256([]byte(key)), sha256.Sum256([]byte(g.cfg.APIKey))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		gc.Header("WWW-Authenticate", "Bearer")
		problem(gc, http.StatusUnauthorized, wire.Unauthorized, "the API key is missing or wrong")
	}
}

// publication is one message of a publish call.
type publication struct {
	message *message
	key     string
}

// published is the answer to one.
type published struct {
	ID      string `json:"id,omitempty"`
	Channel string `json:"channel"`
}

// maxPublications bounds the array of one call.
const maxPublications = 1000

// apiPublish publishes one message, or an array of them in order.
func (g *Gateway) apiPublish(gc *gin.Context) {
	limit := int64(g.cfg.Limits.FrameSize) * 16
	body, err := io.ReadAll(http.MaxBytesReader(gc.Writer, gc.Request.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			problem(gc, http.StatusRequestEntityTooLarge, wire.TooLarge, "the body is too large")
			return
		}
		problem(gc, http.StatusBadRequest, wire.BadRequest, "the body could not be read")
		return
	}
	if body = bytes.TrimSpace(body); len(body) > 0 && body[0] == '[' {
		g.publishArray(gc, body)
		return
	}
	answer := g.publishAll([]json.RawMessage{body})[0]
	if p, ok := answer.(problemDocument); ok {
		problem(gc, p.Status, p.Code, p.Detail)
		return
	}
	gc.JSON(http.StatusOK, answer)
}

// publishArray answers 200 with an array in the same order, a problem document
// in the place of what failed.
func (g *Gateway) publishArray(gc *gin.Context, body []byte) {
	var elements []json.RawMessage
	if err := json.Unmarshal(body, &elements); err != nil {
		problem(gc, http.StatusBadRequest, wire.BadRequest, "the body is not JSON")
		return
	}
	if len(elements) > maxPublications {
		problem(gc, http.StatusRequestEntityTooLarge, wire.TooLarge, "the array has too many messages")
		return
	}
	gc.JSON(http.StatusOK, g.publishAll(elements))
}

// publishAll publishes messages, those of one channel in their order, channels
// side by side. It returns an answer for each.
func (g *Gateway) publishAll(elements []json.RawMessage) []any {
	answers := make([]any, len(elements))
	publications := make([]publication, len(elements))
	byChannel := make(map[string][]int)
	for i, e := range elements {
		channel, err := publications[i].decode(e, int(g.cfg.Limits.FrameSize))
		if err != nil {
			answers[i] = problemOf(err)
			continue
		}
		byChannel[channel] = append(byChannel[channel], i)
	}
	var wg sync.WaitGroup
	for channel, indexes := range byChannel {
		wg.Go(func() {
			for _, i := range indexes {
				answers[i] = g.publishOne(channel, &publications[i])
			}
		})
	}
	wg.Wait()
	return answers
}

// publishOne publishes one message and returns the answer to it.
func (g *Gateway) publishOne(channel string, p *publication) any {
	id, err := g.publish(channel, p.message, p.key, backendScope)
	if err != nil {
		return newProblem(http.StatusServiceUnavailable, wire.Unavailable,
			"not known whether it was published; try again with the same key")
	}
	answer := published{Channel: channel}
	if !id.IsZero() {
		answer.ID = id.String()
	}
	return answer
}

// decode takes in one message of a call and returns its channel, or the mistake
// in it.
func (p *publication) decode(element []byte, limit int) (channel string, err error) {
	var f struct {
		Channel string          `json:"channel"`
		To      string          `json:"to"`
		Event   string          `json:"event"`
		Data    json.RawMessage `json:"data"`
		Base64  *string         `json:"data_base64"`
		Key     *string         `json:"key"`
	}
	if !utf8.Valid(element) {
		return "", mistake(wire.BadRequest, "not UTF-8")
	}
	if err := json.Unmarshal(element, &f); err != nil {
		return "", mistake(wire.BadRequest, "not a message: "+jsonMistake(err))
	}
	p.message = &message{event: f.Event, to: f.To, data: f.Data}
	switch {
	case (f.Data == nil) == (f.Base64 == nil):
		return "", mistake(wire.BadRequest, "data and data_base64: give one of them")
	case len(f.Event) > wire.MaxEvent:
		return "", mistake(wire.BadRequest, "event: must have at most 128 bytes")
	case f.Key != nil && (*f.Key == "" || len(*f.Key) > wire.MaxKey):
		return "", mistake(wire.BadRequest, "key: must have 1 to 128 bytes")
	case f.Base64 != nil:
		if p.message.data, err = base64.StdEncoding.DecodeString(*f.Base64); err != nil {
			return "", mistake(wire.BadRequest, "data_base64: is not base64")
		}
		p.message.binary = true
	}
	if len(p.message.data) > limit {
		return "", mistake(wire.TooLarge, "data is over limits.frame_size")
	}
	if f.Key != nil {
		p.key = *f.Key
	}
	return target(wire.Request{Channel: f.Channel, To: f.To})
}

// jsonMistake says what is wrong with JSON in words for its sender.
func jsonMistake(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return e.Field + " must not be a " + e.Value
	}
	return "invalid JSON"
}

// problemOf returns the problem document for a mistake.
func problemOf(err error) problemDocument {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return newProblem(statusOf(e.Code), e.Code, e.Message)
	}
	return newProblem(http.StatusInternalServerError, wire.Internal, "internal error")
}

// userAnswer is the answer to a call that asks for a user.
type userAnswer struct {
	User     string          `json:"user"`
	Online   bool            `json:"online"`
	Sessions []sessionAnswer `json:"sessions"`
}

type sessionAnswer struct {
	ID          string    `json:"id"`
	Device      string    `json:"device"`
	Client      string    `json:"client"`
	Node        string    `json:"node"`
	IP          string    `json:"ip"`
	ConnectedAt time.Time `json:"connected_at"`
	Channels    []string  `json:"channels"`
}

func (g *Gateway) apiUser(gc *gin.Context) {
	user := gc.Param("user")
	if !validUser(user) {
		problem(gc, http.StatusBadRequest, wire.BadRequest, "not the name of a user")
		return
	}
	ctx, cancel := g.requestContext()
	defer cancel()
	sessions, err := g.sessions.User(ctx, user)
	if err != nil {
		g.unavailable(gc, err)
		return
	}
	answer := userAnswer{User: user, Online: len(sessions) > 0, Sessions: []sessionAnswer{}}
	for _, s := range sessions {
		answer.Sessions = append(answer.Sessions, sessionAnswer{
			s.ID, s.Device, s.Client, s.Node, s.IP, s.ConnectedAt, append([]string{}, s.Channels...),
		})
	}
	gc.JSON(http.StatusOK, answer)
}

// apiDisconnect ends the sessions of a user, or one of them, wherever they are.
func (g *Gateway) apiDisconnect(gc *gin.Context) {
	user := gc.Param("user")
	if !validUser(user) {
		problem(gc, http.StatusBadRequest, wire.BadRequest, "not the name of a user")
		return
	}
	ctx, cancel := g.requestContext()
	defer cancel()
	n, err := g.disconnect(ctx, user, gc.Param("session"))
	if err != nil {
		g.unavailable(gc, err)
		return
	}
	gc.JSON(http.StatusOK, gin.H{"disconnected": n})
}

// disconnect ends the sessions of a user, or one of them, and returns how many
// were connected. The nodes are told before the registry forgets the sessions,
// so that a call that failed can be repeated.
func (g *Gateway) disconnect(ctx context.Context, user, id string) (int, error) {
	connected, err := g.sessions.User(ctx, user)
	if err != nil {
		return 0, err
	}
	told := make(map[session.Owner]bool)
	tell := func(o session.Owner) error {
		if told[o] {
			return nil
		}
		told[o] = true
		return g.control.tell(ctx, opDisconnect, o)
	}
	for _, s := range connected {
		if id == "" || id == s.ID {
			if err := tell(s.Owner); err != nil {
				return 0, err
			}
		}
	}
	ended, err := g.sessions.Disconnect(ctx, user, id)
	if err != nil {
		return 0, err
	}
	for _, o := range ended { // those that have moved meanwhile
		if err := tell(o); err != nil {
			return 0, err
		}
	}
	return len(told), nil
}

type nodeAnswer struct {
	Name        string    `json:"name"`
	Connections int       `json:"connections"`
	Channels    int       `json:"channels"`
	Version     string    `json:"version"`
	StartedAt   time.Time `json:"started_at"`
	Draining    bool      `json:"draining"`
}

func (g *Gateway) apiNodes(gc *gin.Context) {
	ctx, cancel := g.requestContext()
	defer cancel()
	nodes, err := g.sessions.Nodes(ctx)
	if err != nil {
		g.unavailable(gc, err)
		return
	}
	answer := []nodeAnswer{}
	for _, n := range nodes {
		answer = append(answer, nodeAnswer{n.Name, n.Connections, n.Channels, n.Version, n.StartedAt, n.Draining})
	}
	gc.JSON(http.StatusOK, gin.H{"nodes": answer})
}

// unavailable answers a call for which Redis was needed.
func (g *Gateway) unavailable(gc *gin.Context, err error) {
	g.log.Debug("redis did not answer", "endpoint", gc.FullPath(), "error", err)
	problem(gc, http.StatusServiceUnavailable, wire.Unavailable, "redis does not answer, try again")
}
