package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/trace"

	"wssgateway/gateway/wire"
)

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

const (
	// maxPublications bounds the array of one call.
	maxPublications = 1000
	// maxBody is how large a body may be, in messages of the largest size.
	maxBody = 16
)

// apiPublish publishes one message, or an array of them in order.
func (g *Gateway) apiPublish(gc *gin.Context) {
	parent, end := g.hub.tracing.serve("POST /v1/publish", gc.Request.Header)
	defer func() { end(gc.Writer.Status()) }()
	limit := int64(g.cfg.Limits.FrameSize) * maxBody
	body, err := io.ReadAll(http.MaxBytesReader(gc.Writer, gc.Request.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			problem(gc, http.StatusRequestEntityTooLarge, wire.TooLarge, "the body is too large")
			return
		}
		problem(gc, http.StatusBadRequest, wire.BadRequest, "the body could not be read")
		return
	}
	// All messages have one deadline. A caller that has gone publishes nothing
	// any more: it does not know, and may do it again.
	ctx, cancel := context.WithTimeout(gc.Request.Context(), requestTimeout)
	defer cancel()
	if body = bytes.TrimSpace(body); len(body) > 0 && body[0] == '[' {
		g.publishArray(ctx, gc, body, parent)
		return
	}
	answer := g.publishAll(ctx, []json.RawMessage{body}, parent)[0]
	if p, ok := answer.(problemDocument); ok {
		problem(gc, p.Status, p.Code, p.Detail)
		return
	}
	gc.JSON(http.StatusOK, answer)
}

// publishArray answers 200 with an array in the same order, a problem document
// in the place of what failed.
func (g *Gateway) publishArray(ctx context.Context, gc *gin.Context, body []byte, parent trace.SpanContext) {
	var elements []json.RawMessage
	if err := json.Unmarshal(body, &elements); err != nil {
		problem(gc, http.StatusBadRequest, wire.BadRequest, "the body is not JSON")
		return
	}
	if len(elements) > maxPublications {
		problem(gc, http.StatusRequestEntityTooLarge, wire.TooLarge, "the array has too many messages")
		return
	}
	gc.JSON(http.StatusOK, g.publishAll(ctx, elements, parent))
}

// publishAll publishes messages, those of one channel in their order, channels
// side by side. It returns an answer for each. After one that has failed none
// follows on its channel, so that repeating what failed keeps the order.
func (g *Gateway) publishAll(ctx context.Context, elements []json.RawMessage, parent trace.SpanContext) []any {
	answers := make([]any, len(elements))
	publications := make([]publication, len(elements))
	byChannel := make(map[string][]int)
	for i, e := range elements {
		channel, err := publications[i].decode(e, int(g.cfg.Limits.FrameSize))
		if err != nil {
			answers[i] = problemOf(err)
			continue
		}
		publications[i].message.parent = parent
		byChannel[channel] = append(byChannel[channel], i)
	}
	var wg sync.WaitGroup
	for channel, indexes := range byChannel {
		wg.Go(func() {
			var failed bool
			for _, i := range indexes {
				if failed {
					answers[i] = problemOf(mistake(wire.Unavailable, untried))
					continue
				}
				var err error
				if answers[i], err = g.publishOne(ctx, channel, &publications[i]); err != nil {
					answers[i], failed = problemOf(mistake(wire.Unavailable, unpublished(err))), true
				}
			}
		})
	}
	wg.Wait()
	return answers
}

// publishOne publishes one message and returns the answer to it.
func (g *Gateway) publishOne(ctx context.Context, channel string, p *publication) (published, error) {
	id, err := g.publish(ctx, channel, p.message, p.key, backendScope)
	answer := published{Channel: channel}
	if err == nil && !id.IsZero() {
		answer.ID = id.String()
	}
	return answer, err
}

// decode takes in one message of a call and returns its channel, or the mistake
// in it.
func (p *publication) decode(element []byte, limit int) (channel string, err error) {
	r, err := wire.DecodePublication(element)
	switch {
	case err != nil:
		return "", err
	case r.HasKey && r.Key == "":
		return "", mistake(wire.BadRequest, "key: must have 1 to 128 bytes")
	case len(r.Data) > limit:
		return "", mistake(wire.TooLarge, "data is over limits.frame_size")
	}
	p.key = r.Key
	p.message = &message{event: r.Event, to: r.To, data: r.Data, binary: r.Binary}
	return target(r)
}
