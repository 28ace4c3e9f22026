package main

import (
	"context"
	"fmt"
	"sync"

	"wssgateway/client"
	"wssgateway/examples/hostile/attack"
	"wssgateway/examples/lab"
)

// witness looks on at the channels on which nothing may ever come.
type witness struct {
	client *client.Client

	mu     sync.Mutex // guards what follows
	saw    map[string]int
	told   map[string]string // one of them
	closed int
}

func newWitness(addr string) (*witness, error) {
	o := &witness{saw: make(map[string]int), told: make(map[string]string)}
	var err error
	o.client, err = client.New("ws://"+addr+"/ws", client.Options{
		Token:        func(context.Context) (string, error) { return lab.Token("witness") },
		Disconnected: func(client.Disconnected) { o.mu.Lock(); o.closed++; o.mu.Unlock() },
	})
	if err != nil {
		return nil, err
	}
	for _, channel := range o.channels() {
		if _, err := o.client.Subscribe(channel, client.Handler{Message: o.message}, "0"); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *witness) channels() []string {
	return []string{attack.ChannelCut, attack.ChannelForged, attack.ChannelDeep}
}

func (o *witness) message(m client.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.saw[m.Channel]++
	b := append(m.Data[:len(m.Data):len(m.Data)], m.Bytes...)
	o.told[m.Channel] = fmt.Sprintf("%s from %s: %.40q", m.Event, m.From, b)
}

// figures tells what came.
func (o *witness) figures() []lab.Figure {
	o.mu.Lock()
	defer o.mu.Unlock()
	var figures []lab.Figure
	for _, channel := range o.channels() {
		f := lab.Zero("came on "+channel, o.saw[channel])
		if o.saw[channel] > 0 {
			f.Value += ", " + o.told[channel]
		}
		figures = append(figures, f)
	}
	return append(figures, lab.Zero("witness closed", o.closed))
}
