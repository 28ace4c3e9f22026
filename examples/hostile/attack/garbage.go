package attack

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
)

func garbage() []Attack {
	return []Attack{{
		Name:      "bad frames",
		About:     "1 user, 300/s that are not JSON",
		PerSecond: 20,
		Wants:     []string{"closed 1008"},
		run: func(ctx context.Context, f *front) {
			f.ask(ctx, asking{user: "mallory-garbles", perSecond: 300, request: func(int64) string { return `{"type":nope` }})
		},
	}, {
		Name:      "random bytes",
		About:     "10/s send 2 KiB of random bytes after the handshake, with and without token and compression",
		PerSecond: 3,
		Wants:     []string{"closed 1002"},
		run: func(ctx context.Context, f *front) {
			often(ctx, 10, 40, func(i int) { f.oneFrame(ctx, []string{"", "mallory-random"}[i%2], random(uint64(i))) })
		},
	}, {
		Name:      "deep JSON",
		About:     "1 user, 10/s publish 9,000 arrays in each other",
		PerSecond: 2,
		Wants:     []string{"error bad_request"},
		Never:     []string{"published"},
		run: func(ctx context.Context, f *front) {
			deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
			f.ask(ctx, asking{user: "mallory-deep", perSecond: 10, request: func(i int64) string {
				return fmt.Sprintf(`{"type":"publish","ref":%d,"channel":"%s","data":%s}`, i, ChannelDeep, deep)
			}})
		},
	}, {
		Name:      "long arrays",
		About:     "1 user, 10/s send arrays of 3,000 requests, or of 30,000 numbers",
		PerSecond: 2,
		Wants:     []string{"error bad_request"},
		run: func(ctx context.Context, f *front) {
			requests := "[" + strings.Repeat(`{"type":"ping"},`, 3000) + "1]"
			numbers := "[" + strings.Repeat("1,", 30_000) + "1]"
			f.ask(ctx, asking{user: "mallory-long", perSecond: 10, request: func(i int64) string { return []string{requests, numbers}[i%2] }})
		},
	}}
}

// random returns bytes that are the same in every run.
func random(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, seed))
	b := make([]byte, 0, 2048)
	for len(b) < cap(b) {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b
}
