package attack

import (
	"bytes"
	"context"
	"time"
)

// Forbidden are channels on which nothing may ever come: what the attackers have
// there are messages that were never finished, that somebody else is made to say,
// or that no reader would survive.
const (
	ChannelCut    = "open:cut"
	ChannelForged = "open:forged"
	ChannelDeep   = "open:deep"
)

// reactPatience is how long a reaction is waited for.
const reactPatience = 2 * time.Second

// holding is longer than any attack.
const holding = time.Hour

func cuts() []Attack {
	return []Attack{{
		Name:      "cut frames",
		About:     "20/s end inside a message: between fragments, behind a header, after 4,096 bytes of a frame; with and without token",
		PerSecond: 8,
		Wants:     []string{"cut|closed*"},
		run: func(ctx context.Context, f *front) {
			often(ctx, 20, 60, func(i int) { f.cut(ctx, unfinished()[i%4]) })
		},
	}}
}

// unfinishedMessage is what is sent of a message.
type unfinishedMessage struct {
	user string
	b    []byte
}

func unfinished() []unfinishedMessage {
	publish := append([]byte(`{"type":"publish","channel":"`+ChannelCut+`"}`+"\n"), bytes.Repeat([]byte("half "), 2000)...)
	whole := frame(fin|binaryData, publish)
	return []unfinishedMessage{
		{"", frame(text, []byte("{"))},
		{"", header(fin|text, 100)},
		{"mallory-cut", frame(binaryData, publish[:100])},
		{"mallory-cut", whole[:len(whole)-len(publish)+4096]},
	}
}

// cut sends what it has and closes its side.
func (f *front) cut(ctx context.Context, m unfinishedMessage) {
	p, err := f.open(ctx, way{user: m.user})
	if err != nil {
		return
	}
	defer p.close()
	if m.user != "" && !p.connected() {
		return
	}
	if p.send(1, m.b) != nil {
		return
	}
	p.half()
	p.react(reactPatience)
}
