package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"wssgateway/client"
	"wssgateway/gateway/wire"
)

// typedHelp says what can be typed.
const typedHelp = `
What is typed is published to the first channel: JSON as it is, anything else as
{"text": "..."}. Lines that begin with a slash do something else:
  /to USER TEXT           publish to a user's inbox
  /join CHANNEL           subscribe, and publish there from now on
  /leave CHANNEL          unsubscribe
  /who [CHANNEL]          who is there
  /history [CHANNEL] [N]  the last messages that are kept, up to N
  /help                   this
`

// terminal shows what comes to a client and does what is typed.
type terminal struct {
	client *client.Client
	raw    bool                    // frames are shown as they come, and nothing else
	end    context.CancelCauseFunc // ends run

	mu       sync.Mutex // guards what follows, and keeps lines whole
	out, err io.Writer
	channels []*subscribed // what is typed goes to the first
}

type subscribed struct {
	name string
	*client.Subscription
}

func newTerminal(out, err io.Writer, raw bool) *terminal {
	return &terminal{out: out, err: err, raw: raw}
}

// note says something that is no message.
func (t *terminal) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.err, "-- %s\n", printable(fmt.Sprintf(format, args...)))
}

func (t *terminal) frame(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%s\n", printableJSON(b))
}

// show shows a message: when it came, where, its id, who sent it, event and data.
func (t *terminal) show(m client.Message) {
	if t.raw {
		return
	}
	data := printableJSON(m.Data)
	if m.Binary {
		data = fmt.Sprintf("(%d bytes)", len(m.Bytes))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%s %s %s %s %s %s\n", time.Now().Format("15:04:05.000"),
		word(m.Channel), word(m.ID), word(m.From), word(m.Event), data)
}

// handler shows everything that comes on a channel.
func (t *terminal) handler() client.Handler {
	return client.Handler{
		Message: t.show,
		Gap:     func(channel, last string) { t.note("%s: messages up to %s are missing", channel, last) },
		Joined:  func(channel, user string) { t.note("%s: %s joined", channel, user) },
		Left:    func(channel, user string) { t.note("%s: %s left", channel, user) },
		Refused: func(channel, code string) { t.note("%s: %s", channel, code) },
	}
}

func (t *terminal) connected(c client.Connected) {
	how := "session " + c.Session
	if c.Resumed {
		how += ", resumed"
	}
	if c.Handover {
		how += " without a break"
	}
	t.note("connected to %s as %s (%s)", c.Node, c.User, how)
}

func (t *terminal) disconnected(d client.Disconnected) { t.note("not connected: %s", reasonOf(d.Err)) }

// failed tells of an attempt to connect that has failed. A token that is refused
// ends it: there is no other one.
func (t *terminal) failed(f client.Failed) {
	if refusesToken(f.Err) {
		t.end(f.Err)
		return
	}
	what := "not connected"
	if f.Handover {
		what = "not moved"
	}
	t.note("%s: %s; attempt %d, the next one in %v", what, reasonOf(f.Err), f.Attempt, f.Wait.Round(10*time.Millisecond))
}

// refusesToken reports whether an attempt to connect has failed by its token.
func refusesToken(err error) bool {
	var refused *client.RefusedError
	var closed *client.CloseError
	return errors.As(err, &refused) && refused.Status == http.StatusUnauthorized ||
		errors.As(err, &closed) && wire.CloseCode(closed.Code) == wire.CloseToken
}

// reasonOf returns what an error of the client says.
func reasonOf(err error) string { return printable(strings.TrimPrefix(err.Error(), "client: ")) }

func (t *terminal) help() {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.err, "-- %s\n", strings.TrimSpace(typedHelp))
}

func (t *terminal) goaway(g client.Goaway) {
	t.note("asked to move (%s), will do so in %s", g.Reason, g.After.Round(time.Millisecond))
}

// join subscribes to a channel; what is typed goes there from now on.
func (t *terminal) join(channel string) error {
	s, err := t.client.Subscribe(channel, t.handler())
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.channels = append(t.channels, &subscribed{channel, s})
	return nil
}

// leave ends a subscription.
func (t *terminal) leave(channel string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.channels, func(s *subscribed) bool { return s.name == channel })
	if i < 0 {
		return fmt.Errorf("not subscribed to %s", quote(channel))
	}
	t.channels[i].Unsubscribe()
	t.channels = slices.Delete(t.channels, i, i+1)
	return nil
}

// current returns the channel that what is typed goes to.
func (t *terminal) current() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.channels) == 0 {
		return "", errors.New("there is no channel: /join one")
	}
	return t.channels[0].name, nil
}

// do does what was typed, and waits for the answer.
func (t *terminal) do(ctx context.Context, line string) {
	line = strings.TrimSpace(line)
	if line == "" {
		return
	}
	var err error
	if command, ok := strings.CutPrefix(line, "/"); ok {
		err = t.command(ctx, strings.Fields(command), line)
	} else {
		var channel string
		if channel, err = t.current(); err == nil {
			_, err = t.client.Publish(ctx, client.Message{Channel: channel, Data: typed(line)})
		}
	}
	if err != nil && ctx.Err() == nil {
		t.note("%v", err)
	}
}

// typed returns a line as data.
func typed(line string) json.RawMessage {
	if json.Valid([]byte(line)) {
		return json.RawMessage(line)
	}
	b, err := json.Marshal(map[string]string{"text": line})
	if err != nil {
		panic(err) // strings always encode
	}
	return b
}

var errTyped = errors.New("not understood; /help says what can be typed")

// command does what a line with a slash says.
func (t *terminal) command(ctx context.Context, words []string, line string) error {
	if len(words) == 0 {
		return errTyped
	}
	name, args := words[0], words[1:]
	switch {
	case name == "help":
		t.help()
		return nil
	case name == "to" && len(args) >= 2:
		text := strings.TrimSpace(strings.TrimPrefix(line, "/"+name))
		text = strings.TrimSpace(strings.TrimPrefix(text, args[0]))
		_, err := t.client.Publish(ctx, client.Message{To: args[0], Data: typed(text)})
		return err
	case name == "join" && len(args) == 1:
		if err := t.join(args[0]); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		last := len(t.channels) - 1
		t.channels = slices.Insert(t.channels[:last], 0, t.channels[last])
		return nil
	case name == "leave" && len(args) == 1:
		return t.leave(args[0])
	case name == "who" && len(args) <= 1:
		return t.who(ctx, args)
	case name == "history" && len(args) <= 2:
		return t.history(ctx, args)
	}
	return errTyped
}

// target returns the channel that a command names, or else the current one.
func (t *terminal) target(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	return t.current()
}

func (t *terminal) who(ctx context.Context, args []string) error {
	channel, err := t.target(args)
	if err != nil {
		return err
	}
	members, count, err := t.client.Presence(ctx, channel)
	if err != nil {
		return err
	}
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.User
		if m.Sessions > 1 {
			names[i] += " (" + strconv.Itoa(m.Sessions) + " sessions)"
		}
	}
	t.note("%s: %d users: %s", channel, count, strings.Join(names, ", "))
	return nil
}

func (t *terminal) history(ctx context.Context, args []string) error {
	const limit = 1000 // the most that the protocol allows
	n := 20
	if len(args) == 2 {
		var err error
		if n, err = strconv.Atoi(args[1]); err != nil || n < 1 {
			return errTyped
		}
	}
	channel, err := t.target(args)
	if err != nil {
		return err
	}
	messages, _, err := t.client.History(ctx, channel, "0", limit)
	if err != nil {
		return err
	}
	for _, m := range messages[max(0, len(messages)-n):] {
		t.show(m)
	}
	return nil
}
