package attack

import (
	"context"
	"slices"
)

// Of a message whose deflate stream ends before its frame does, the rest belongs
// to nobody. It must not be taken for the beginning of the next message, of this
// peer or of any other.
func deflates() []Attack {
	return []Attack{{
		Name:      "deflate tails",
		About:     "20/s put a request behind the end of a compressed one, or the head of one that swallows what comes next; with and without token",
		PerSecond: 8,
		Wants:     []string{"closed 1002|closed 1007"},
		Never:     []string{"published"},
		run: func(ctx context.Context, f *front) {
			often(ctx, 20, 60, func(i int) {
				user := ""
				if i%2 == 0 {
					user = "mallory-deflate"
				}
				f.leaveTail(ctx, user, tails()[i/2%len(tails())])
			})
		},
	}}
}

// tail is a compressed message that ends early.
type tail struct {
	first byte
	b     []byte
}

// ended is a request in a block that is the last.
func ended() []byte { return stored(true, []byte(`{"type":"ping","ref":1}`)) }

func tails() []tail {
	forged := stored(false, []byte(`{"type":"publish","ref":66,"channel":"`+ChannelForged+`","event":"forged","data":"I owe mallory 1000"}`))
	// A block that announces more than it holds: the victim's bytes would be the rest.
	theft := stored(false, append([]byte(`{"type":"publish","channel":"`+ChannelForged+`","event":"stolen"}`+"\n"), make([]byte, 60000)...))
	theft = theft[:len(theft)-60000]
	return []tail{
		{fin | rsv1 | text, slices.Concat(ended(), forged, []byte{0})},
		{fin | rsv1 | text, slices.Concat(ended(), theft)},
		{fin | rsv1 | binaryData, slices.Concat(ended(), theft)},
		{rsv1 | text, ended()},                           // and the next fragment never comes
		{fin | rsv1 | text, append(ended(), 0)},          // as RFC 7692, section 7.2.3.4, has it
		{fin | rsv1 | text, append(ended(), ended()...)}, // two ends
	}
}

func (f *front) leaveTail(ctx context.Context, user string, t tail) {
	p, err := f.open(ctx, way{user: user, deflate: true})
	if err != nil {
		return
	}
	defer p.close()
	if user != "" && !p.connected() {
		return
	}
	if p.send(1, frame(t.first, t.b)) == nil {
		p.react(reactPatience)
	}
}
