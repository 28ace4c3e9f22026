package attack

import (
	"bytes"
	"context"
)

func oversized() []Attack {
	return []Attack{{
		Name:      "announced sizes",
		About:     "10/s, with and without token, send the header of a frame of 2^62 bytes, of one of 1 MiB, or of one more than is allowed, and wait",
		PerSecond: 4,
		Wants:     []string{"closed 1009"},
		Never:     []string{"open"}, // refused at once, with nothing of the payload
		run: func(ctx context.Context, f *front) {
			sizes := []uint64{1 << 62, 1 << 20, 64<<10 + 1}
			often(ctx, 10, 40, func(i int) {
				f.oneFrame(ctx, []string{"", "mallory-size"}[i%2], header(fin|binaryData, sizes[i/2%len(sizes)]))
			})
		},
	}, {
		Name:      "bombs",
		About:     "4/s send 60 MB of spaces compressed to 58 kB",
		PerSecond: 1,
		Wants:     []string{"closed 1009"},
		run: func(ctx context.Context, f *front) {
			part := append(deflated(bytes.Repeat([]byte(" "), 1<<20)), syncMarker...)
			bomb := frame(fin|rsv1|text, bytes.TrimSuffix(bytes.Repeat(part, 60), syncMarker))
			often(ctx, 4, 20, func(int) { f.oneFrame(ctx, "", bomb) })
		},
	}, {
		Name:      "bombs of nothing",
		About:     "2 peers send, at 3 MB/s, compressed messages without an end that inflate to nothing",
		PerSecond: 0.5,
		Wants:     []string{"closed 1009|closed 1008"},
		run: func(ctx context.Context, f *front) {
			nothing := bytes.Repeat(stored(false, nil), 2<<10)
			f.flood(ctx, flood{peers: 2, perSecond: 300, first: frame(rsv1|text, nothing), unit: frame(continuation, nothing),
				reads: true, way: way{deflate: true}})
		},
	}}
}

// oneFrame sends a frame, or a part of one, and waits for what comes of it.
func (f *front) oneFrame(ctx context.Context, user string, b []byte) {
	p, err := f.open(ctx, way{user: user, deflate: true})
	if err != nil {
		return
	}
	defer p.close()
	if user != "" && !p.connected() {
		return
	}
	if p.send(1, b) == nil {
		p.react(reactPatience)
	}
}
