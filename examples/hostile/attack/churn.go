package attack

import (
	"context"
	"fmt"
	"net"
	"time"
)

func churns() []Attack {
	return []Attack{{
		Name:      "connections that come and go",
		About:     "20/s of 20 users, with 3 channels each: a third closes, a third is cut, a third is reset",
		PerSecond: 5,
		Wants:     []string{"connected"},
		run: func(ctx context.Context, f *front) {
			often(ctx, 20, 40, func(i int) { f.comeAndGo(ctx, i) })
		},
	}, {
		Name:      "half handshakes",
		About:     "20/s send a part of a handshake and are gone",
		PerSecond: 5,
		run: func(ctx context.Context, f *front) {
			request := f.request(way{user: "mallory-half"}, "")
			often(ctx, 20, 40, func(i int) {
				p, err := f.dial(ctx, f.target.Public, 0)
				if err != nil {
					return
				}
				_ = p.send(1, []byte(request[:i*37%len(request)]))
				p.end(i)
			})
		},
	}}
}

func (f *front) comeAndGo(ctx context.Context, i int) {
	p, err := f.open(ctx, way{user: fmt.Sprint("mallory-churn-", i%20), channels: []string{"open:1", "open:2", Lobby}})
	if err != nil {
		return
	}
	f.acted(1, 0)
	p.connected()
	if i%3 == 0 {
		_ = p.send(0, frame(fin|0x8, []byte{0x03, 0xe8})) // 1000
		p.react(time.Second)
	}
	p.end(i)
}

// end closes the connection, every third time without a goodbye (RST).
func (p *peer) end(i int) {
	if c, ok := p.conn.(*net.TCPConn); ok && i%3 == 1 {
		_ = c.SetLinger(0)
	}
	p.close()
}
