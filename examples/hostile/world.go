package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"wssgateway/examples/hostile/attack"
	"wssgateway/examples/lab"
)

// world is everything there is in a run.
type world struct {
	scenario scenario
	lab      *lab.Lab
	node     *lab.Node
	sink     *helper
	sinkAddr string
	backend  *backend
	caller   *caller
	witness  *witness
	members  []*member
	ledger   ledger
	noise    noise

	attackers atomic.Int64 // their process

	phases  []phase
	before  int64         // bytes that the gateway had when it was quiet
	after   int64         // and in the end
	back    time.Duration // after which it was so
	streams []string      // of calls that nobody wanted
}

// configuration is what the rooms need; all limits are as they come.
const configuration = `
compression: true
classes:
  open: {subscribe: any, publish: any}
  lobby: {presence: true}
  big: {history: {size: %d}}
`

func newWorld(ctx context.Context, s scenario) (*world, error) {
	w := &world{scenario: s}
	w.ledger.acked = make(map[string][]int)
	var err error
	if w.lab, err = lab.New(ctx, fmt.Sprintf(configuration, attack.BigMessages), "--save", "", "--appendonly", "no"); err != nil {
		return w, err
	}
	if s.control != nil {
		if err := s.control.build(ctx, w.lab); err != nil {
			return w, err
		}
	}
	w.lab.Env = []string{fmt.Sprint("GOMEMLIMIT=", goLimit)}
	if w.node, err = w.lab.AddNode("gateway-1"); err != nil {
		return w, err
	}
	if err := w.node.AwaitReady(ctx); err != nil {
		return w, err
	}
	if w.sink, w.sinkAddr, err = startSink(ctx); err != nil {
		return w, err
	}
	return w, w.populate(ctx)
}

// populate makes what is there before anybody attacks.
func (w *world) populate(ctx context.Context) (err error) {
	if err := w.fill(ctx); err != nil {
		return err
	}
	if w.backend, err = newBackend(ctx, w.lab.Redis.Socket()); err != nil {
		return err
	}
	if w.witness, err = newWitness(w.node.Public); err != nil {
		return err
	}
	for i := range members {
		m, err := newMember(w, i)
		if err != nil {
			return err
		}
		w.members = append(w.members, m)
		if c, ok := m.speaker.(*usual); ok {
			w.caller = &caller{client: c}
		}
	}
	return nil
}

// fill publishes the histories that are too big to be asked for lightly.
func (w *world) fill(ctx context.Context) error {
	const perCall = 10
	data := strings.Repeat("x", 65_000)
	for i := range attack.BigChannels {
		for range attack.BigMessages / perCall {
			var messages []map[string]string
			for range perCall {
				messages = append(messages, map[string]string{"channel": fmt.Sprint("big:", i), "data": data})
			}
			body, err := json.Marshal(messages)
			if err != nil {
				return err
			}
			if err := w.node.Call(ctx, "/v1/publish", body, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// close ends the world. If it did not go well, what the processes said is shown.
func (w *world) close(failed bool) error {
	w.sink.kill()
	for _, p := range w.phases {
		p.helper.kill()
	}
	if w.lab == nil {
		return nil
	}
	var err error
	if b, reading := os.ReadFile(w.lab.Log()); reading == nil && (failed || bytes.Contains(b, []byte("panic"))) {
		fmt.Fprintf(os.Stderr, "%s\n", b[max(0, len(b)-10_000):])
	}
	return errors.Join(err, w.lab.Close())
}
