package attack

import (
	"context"
	"strings"
	"time"
)

// heldTooLong is by when the gateway is to have ended a request that does not go
// on: handshake_timeout is 10 s, and so is what an answer may take.
const heldTooLong = 18 * time.Second

// draining is how long what waits in a small window may take to come.
const draining = 4 * time.Second

// slowRounds is how often each slow request is made.
const slowRounds = 6

func slowHTTP() []Attack {
	return []Attack{{
		Name:      "slow requests",
		About:     "14 kinds of requests whose body or header does not come, or whose answer is not read; public and admin listener; 14/s at first",
		PerSecond: 0.5,
		Wants:     []string{"ended|too short to say"},
		Never:     []string{"public held: *"},
		run: func(ctx context.Context, f *front) {
			kinds := f.slowRequests()
			begin := newPace(14)
			each(len(kinds)*slowRounds, func(i int) {
				if begin.wait(ctx, 1) {
					f.slow(ctx, kinds[i%len(kinds)])
				}
			})
		},
	}}
}

// slowRequest is a request that does not go on.
type slowRequest struct {
	name    string
	addr    string
	b       string
	trickle string // goes on for ever, a byte a second
	unread  bool   // its answers are not read
}

func (f *front) slowRequests() []slowRequest {
	public, admin := f.target.Public, f.target.Admin
	requests := []slowRequest{
		{name: "public held: handshake with a body", addr: public, b: f.request(way{}, "Content-Length: 1000\r\n")},
		{name: "public held: handshake of a user with a body", addr: public, b: f.request(way{user: "mallory-slow"}, "Content-Length: 1000\r\n")},
	}
	for _, listener := range []struct{ name, addr, path string }{{"public", public, "/ws"}, {"admin", admin, "/v1/publish"}} {
		start := func(method, path, headers string) string {
			return method + " " + path + " HTTP/1.1\r\nHost: " + listener.addr + "\r\n" + headers
		}
		for _, r := range []slowRequest{
			{name: "length", b: start("POST", listener.path, "Content-Length: 1000\r\n\r\n")},
			{name: "chunks", b: start("POST", listener.path, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")},
			{name: "body of GET", b: start("GET", "/healthz", "Content-Length: 1000\r\n\r\n")},
			{name: "expect", b: start("POST", listener.path, "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n")},
			{name: "header", b: start("GET", "/healthz", "X-Slow: "), trickle: "a"},
			{name: "unread answers", b: strings.Repeat(start("GET", "/healthz", "\r\n"), 20_000), unread: true},
		} {
			r.name, r.addr = listener.name+" held: "+r.name, listener.addr
			requests = append(requests, r)
		}
	}
	return requests
}

func (f *front) slow(ctx context.Context, r slowRequest) {
	window := 0
	if r.unread {
		window = smallWindow
	}
	p, err := f.dial(ctx, r.addr, window)
	if err != nil {
		return
	}
	defer p.close()
	began := time.Now()
	if err := p.send(1, []byte(r.b)); err != nil && !r.unread {
		f.saw("ended")
		return
	}
	for ctx.Err() == nil && time.Since(began) < heldTooLong {
		if r.unread {
			sleep(ctx, time.Second)
			continue
		}
		if p.ends(time.Second) || r.trickle != "" && p.send(0, []byte(r.trickle)) != nil {
			f.saw("ended")
			return
		}
	}
	switch {
	case r.unread && ctx.Err() == nil && p.ends(draining):
		f.saw("ended")
	case ctx.Err() != nil:
		f.saw("too short to say")
	default:
		f.saw(r.name)
	}
}

// ends reads for d and reports whether the connection ended.
func (p *peer) ends(d time.Duration) bool {
	p.deadline(d)
	for {
		if _, err := p.r.Discard(1); err != nil {
			return !isTimeout(err)
		}
	}
}
