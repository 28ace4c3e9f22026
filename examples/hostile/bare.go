package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"

	"github.com/coder/websocket"
)

// bare is a member that compresses all it sends. It does not come back: that it
// is closed is what must not happen.
type bare struct {
	member *member
	addr   string
	open   chan struct{} // closed when there is a connection
	conn   *websocket.Conn

	mu      sync.Mutex // guards what follows
	last    int64
	pending map[int64]chan error // of size 1
}

func newBare(m *member, addr string) *bare {
	return &bare{member: m, addr: addr, open: make(chan struct{}), pending: make(map[int64]chan error)}
}

func (b *bare) run(ctx context.Context) error {
	if err := b.connect(ctx); err != nil {
		return err
	}
	defer func() { _ = b.conn.CloseNow() }()
	close(b.open)
	stop := context.AfterFunc(ctx, func() { _ = b.conn.Close(websocket.StatusNormalClosure, "") })
	defer stop()
	for {
		kind, frame, err := b.conn.Read(context.WithoutCancel(ctx))
		if err != nil {
			if ctx.Err() == nil {
				b.member.wasClosed(err)
			}
			b.fail(err)
			return nil
		}
		b.take(kind, frame)
	}
}

func (b *bare) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	token, err := b.member.token(ctx)
	if err != nil {
		return err
	}
	query := url.Values{"access_token": {token}, "channel": b.member.channels}
	b.conn, _, err = websocket.Dial(ctx, "ws://"+b.addr+"/ws?"+query.Encode(), &websocket.DialOptions{ //nolint:bodyclose // Dial does
		CompressionMode: websocket.CompressionNoContextTakeover, CompressionThreshold: 1,
	})
	if err != nil {
		return err
	}
	b.conn.SetReadLimit(1 << 20)
	_, frame, err := b.conn.Read(ctx)
	if err == nil && !bytes.HasPrefix(frame, []byte(`{"type":"connected"`)) {
		err = fmt.Errorf("%s connects: got %s", b.member.user, frame)
	}
	return err
}

func (b *bare) awaitConnected(ctx context.Context) error {
	select {
	case <-b.open:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s is not connected: %w", b.member.user, ctx.Err())
	}
}

// take takes in a frame.
func (b *bare) take(kind websocket.MessageType, frame []byte) {
	head, payload := frame, []byte(nil)
	if kind == websocket.MessageBinary {
		head, payload, _ = bytes.Cut(frame, []byte("\n"))
	}
	var f struct {
		Type, Channel, ID, Code, Message string
		Ref                              int64
		Data                             json.RawMessage
	}
	if err := json.Unmarshal(head, &f); err != nil {
		b.member.wasClosed(fmt.Errorf("not understood: %s", head))
		return
	}
	switch f.Type {
	case "message":
		if payload == nil {
			payload = f.Data
		}
		b.member.take(f.Channel, f.ID, payload)
	case "published":
		b.answer(f.Ref, nil)
	case "error":
		b.answer(f.Ref, errors.New(f.Code+": "+f.Message))
	case "reset":
		b.member.gap()
	}
}

func (b *bare) answer(ref int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if waiting := b.pending[ref]; waiting != nil {
		delete(b.pending, ref)
		waiting <- err
	}
}

// fail fails everything that waits for an answer.
func (b *bare) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ref, waiting := range b.pending {
		delete(b.pending, ref)
		waiting <- err
	}
}

func (b *bare) publish(ctx context.Context, channel string, data []byte, binary bool) error {
	waiting := make(chan error, 1)
	b.mu.Lock()
	b.last++
	ref := b.last
	b.pending[ref] = waiting
	b.mu.Unlock()
	frame, kind := fmt.Appendf(nil, `{"type":"publish","ref":%d,"channel":%q,"event":"note","data":%s}`, ref, channel, data), websocket.MessageText
	if binary {
		frame, kind = fmt.Appendf(nil, `{"type":"publish","ref":%d,"channel":%q,"event":"note"}`+"\n%s", ref, channel, data), websocket.MessageBinary
	}
	if err := b.write(kind, frame); err != nil {
		return err
	}
	select {
	case err := <-waiting:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write writes a message. A write that is given up ends the connection, so it has
// a time of its own.
func (b *bare) write(kind websocket.MessageType, frame []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*publishTimeout)
	defer cancel()
	return b.conn.Write(ctx, kind, frame)
}
