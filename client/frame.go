package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

// frame is a frame of the gateway, its envelope decoded.
type frame struct {
	Type       string              `json:"type"`
	Ref        int64               `json:"ref"`
	Channel    string              `json:"channel"`
	ID         string              `json:"id"`
	Event      string              `json:"event"`
	From       string              `json:"from"`
	To         string              `json:"to"`
	Data       json.RawMessage     `json:"data"`
	Session    string              `json:"session"`
	User       string              `json:"user"`
	Node       string              `json:"node"`
	Resumed    bool                `json:"resumed"`
	Ping       int                 `json:"ping"`
	Channels   map[string]standing `json:"channels"`
	Last       string              `json:"last"`
	Recovered  bool                `json:"recovered"`
	Code       string              `json:"code"`
	Message    string              `json:"message"`
	RetryMS    int64               `json:"retry_after_ms"`
	Reason     string              `json:"reason"`
	AfterMS    int64               `json:"after_ms"`
	DeadlineMS int64               `json:"deadline_ms"`
	Messages   []stored            `json:"messages"`
	Members    []Member            `json:"members"`
	Count      int                 `json:"count"`

	size   int // as it came
	binary bool
	raw    []byte // of a binary frame: what follows the first line
}

// standing is where a channel stands for a client that has just connected.
type standing struct {
	Last      string `json:"last"`
	Recovered bool   `json:"recovered"`
	Since     string `json:"since"` // where the device's ack has it begin
	Error     string `json:"error"`
}

// stored is a message in a history.
type stored struct {
	ID         string          `json:"id"`
	Event      string          `json:"event"`
	From       string          `json:"from"`
	To         string          `json:"to"`
	Data       json.RawMessage `json:"data"`
	DataBase64 []byte          `json:"data_base64"`
}

func parseFrame(kind websocket.MessageType, b []byte) (*frame, error) {
	f := &frame{size: len(b)}
	if kind == websocket.MessageBinary {
		line, raw, ok := bytes.Cut(b, []byte{'\n'})
		if !ok {
			return nil, fmt.Errorf("client: binary frame without a first line")
		}
		b, f.binary, f.raw = line, true, raw
	}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("client: frame: %w", err)
	}
	return f, nil
}

// err returns the error that a frame tells.
func (f *frame) err() *Error {
	return &Error{f.Code, f.Message, time.Duration(f.RetryMS) * time.Millisecond}
}

// message returns the message that a frame delivers.
func (f *frame) message() Message {
	return Message{
		Channel: f.Channel, ID: f.ID, Event: f.Event, From: f.From, To: f.To,
		Data: f.Data, Binary: f.binary, Bytes: f.raw,
	}
}

func (s stored) message(channel string) Message {
	m := Message{Channel: channel, ID: s.ID, Event: s.Event, From: s.From, To: s.To, Data: s.Data}
	if s.Data == nil {
		m.Binary, m.Bytes = true, s.DataBase64
	}
	return m
}
