package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/golang-jwt/jwt/v5"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// The parts of the hot path, each by itself. The kernel is not among them: sockets
// write to /dev/null.

// TestAConnectionIsSmall: there are many. What is allocated for more than
// this has 640 bytes.
func TestAConnectionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(conn{}); size > 576 {
		t.Errorf("a connection has %d bytes", size)
	}
}

// BenchmarkRound delivers to 1,000 connections: one message, and sixteen that have
// queued up; plain and compressed.
func BenchmarkRound(b *testing.B) {
	const connections = 1000
	data := strings.Repeat("some words, and others ", 20)
	for _, deflates := range []bool{false, true} {
		for _, messages := range []int{1, 16} {
			b.Run(fmt.Sprintf("messages=%d/deflate=%v", messages, deflates), func(b *testing.B) {
				s, ch := shardOfMany(b, connections)
				ch.hub = s.hub
				for _, m := range s.members[ch] {
					m.conn.deflates = deflates
				}
				frame, err := messageFrame("room:1", broker.ID{MS: 1}, `t,"data":"`+data+`"`)
				if err != nil {
					b.Fatal(err)
				}
				queue := make([]item, messages)
				id := uint64(0)
				b.ReportAllocs()
				for b.Loop() {
					for i := range queue {
						id++
						queue[i] = item{kind: itemFrame, channel: ch, id: broker.ID{MS: id}, frame: frame, at: time.Now()}
						if deflates {
							queue[i].packed = new(packed)
						}
					}
					s.deliver(queue)
				}
				b.ReportMetric(float64(b.Elapsed())/float64(b.N*messages*connections), "ns/delivery")
			})
		}
	}
}

func BenchmarkMessageFrame(b *testing.B) {
	m := message{event: "chat", from: "alice", data: []byte(`{"text":"` + strings.Repeat("x", 128) + `"}`)}
	payload := string(m.payload())
	id := broker.ID{MS: 1763672400123}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := messageFrame("room:42", id, payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify is what a token costs at each connect.
func BenchmarkVerify(b *testing.B) {
	cfg := DefaultConfig()
	cfg.JWTSecret = strings.Repeat("s", 32)
	v := newVerifier(&cfg)
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "alice", "subscribe": []string{"*"}, "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(cfg.JWTSecret))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.verify(token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDeflate(b *testing.B) {
	frame := wiretest.ServerFrame(wire.OpText, strings.Repeat(`{"name":"value","other":12345}`, 30))
	b.ReportAllocs()
	for b.Loop() {
		wire.Deflate(frame)
	}
}
