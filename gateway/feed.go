package gateway

import (
	"context"
	"time"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

// presenceChange says what became of a user on a channel. Its first letter is
// how it stands in Redis.
type presenceChange string

const (
	presenceJoin  presenceChange = "join"
	presenceLeave presenceChange = "leave"
)

// presenceChannel carries who comes to a channel and who leaves it. No client
// can name it: it begins with a star.
func presenceChannel(channel string) string { return "*presence:" + channel }

// presenceRetention is for what a link that was away still has to get.
var presenceRetention = broker.Retention{Size: 100, TTL: time.Minute, Memory: time.Hour}

// presencePayload is what is published when a user comes or goes: the letter of
// the change, which is the version too, and the user.
func presencePayload(change presenceChange, user string) []byte {
	return append([]byte{change[0]}, user...)
}

// feed is a channel's subscription to who comes and goes. It is the broker's
// sink, and hands what it gets to the channel, in one order with its messages.
type feed struct {
	channel *channel
	sub     *broker.Subscription // set before the channel is ready
}

func (f *feed) subscribe(ctx context.Context) (err error) {
	f.sub, err = f.channel.hub.broker.Subscribe(ctx, presenceChannel(f.channel.name), true, f)
	return err
}

// Deliver implements broker.Sink. Who joins is not told so.
func (f *feed) Deliver(m broker.Message) {
	ch := f.channel
	if m.Payload == "" || m.Foreign {
		return
	}
	f.changed()
	user := m.Payload[1:]
	it := item{kind: itemFrame, channel: ch}
	switch m.Payload[0] {
	case presenceJoin[0]:
		it.except = user
		it.frame = presenceFrame(presenceJoin, ch.name, user)
	case presenceLeave[0]:
		it.frame = presenceFrame(presenceLeave, ch.name, user)
	default:
		return // a later version's
	}
	ch.enqueue(it)
}

// changed has who is there looked up anew for whoever asks once clients know.
func (f *feed) changed() {
	if changed := f.channel.hub.changed; changed != nil {
		changed(f.channel.name)
	}
}

func presenceFrame(change presenceChange, channel, user string) []byte {
	return wire.NewObject(string(change), "").Str("channel", channel).Str("user", user).Frame()
}

// Reset implements broker.Sink. Of the channel's messages nothing is lost, but
// its clients have to ask anew who is there.
func (f *feed) Reset(broker.ID) {
	f.changed()
	ch := f.channel
	ch.mu.Lock()
	defer ch.mu.Unlock()
	it := item{kind: itemReset, channel: ch, id: ch.last, frame: resetFrame(ch, ch.last)}
	for _, s := range ch.shards {
		s.enqueue(it)
	}
}

// Doubted implements broker.Doubter: members may be lost, or those that have
// gone may still be there.
func (f *feed) Doubted() {
	if doubted := f.channel.hub.doubted; doubted != nil {
		doubted(f.channel.name)
	}
}
