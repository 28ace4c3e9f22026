package gateway_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
	"wssgateway/gateway"
	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// crowdEnv has the test binary be a crowd instead of testing: clients in a
// process of their own, so that what a benchmark measures is the server's.
const crowdEnv = "GATEWAY_TEST_CROWD"

// crowd is a process with many connections to one node, all on one channel.
type crowd struct {
	b   testing.TB
	in  io.Writer
	out *bufio.Scanner
}

func startCrowd(b testing.TB, n *node, connections int, channel string) *crowd {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crowdEnv+"="+strings.Join([]string{n.public, n.api, channel, strconv.Itoa(connections)}, " "))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	c := &crowd{b, in, bufio.NewScanner(out)}
	c.expect("ready")
	return c
}

// publish has the crowd publish a number of messages in one call, and returns
// when every connection has got them all.
func (c *crowd) publish(messages int) {
	fmt.Fprintln(c.in, messages)
	c.expect("done")
}

// close ends the connections.
func (c *crowd) close() {
	fmt.Fprintln(c.in, "close")
	c.expect("closed")
}

func (c *crowd) expect(word string) {
	c.b.Helper()
	if !c.out.Scan() || c.out.Text() != word {
		c.b.Fatalf("crowd: got %q (%v), want %s", c.out.Text(), c.out.Err(), word)
	}
}

// runCrowd is the other process.
func runCrowd(what string) error {
	var public, api, channel string
	var connections int
	if _, err := fmt.Sscan(what, &public, &api, &channel, &connections); err != nil {
		return err
	}
	var got atomic.Int64
	arrived := make(chan struct{}, 1)
	conns := make([]net.Conn, connections)
	for i := range conns {
		var err error
		if conns[i], err = crowdConnect(public, channel, i); err != nil {
			return err
		}
		go func() {
			for r := bufio.NewReader(conns[i]); ; {
				f, err := wiretest.ReadFrame(r)
				if err != nil {
					return
				}
				if opcode(f) == wire.OpText && bytes.Contains(f, []byte(`"type":"message"`)) {
					got.Add(1)
					select {
					case arrived <- struct{}{}:
					default:
					}
				}
			}
		}()
	}
	fmt.Println("ready")
	want := int64(0)
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		if s.Text() == "close" {
			for _, c := range conns {
				c.Close()
			}
			fmt.Println("closed")
			continue
		}
		messages, err := strconv.Atoi(s.Text())
		if err != nil {
			return err
		}
		if err := crowdPublish(api, channel, messages); err != nil {
			return err
		}
		for want += int64(messages * connections); got.Load() < want; {
			<-arrived
		}
		if got.Load() != want {
			return fmt.Errorf("%d messages came, want %d", got.Load(), want)
		}
		fmt.Println("done")
	}
	return nil
}

// crowdConnect connects by hand, and has read the reply.
func crowdConnect(public, channel string, i int) (net.Conn, error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(public, "http://"))
	if err != nil {
		return nil, err
	}
	query := "access_token=" + token(fmt.Sprintf("user%d", i)) + "&channel=" + url.QueryEscape(channel)
	fmt.Fprintf(c, "GET /ws?%s HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", query)
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, b...) {
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, fmt.Errorf("handshake: %w after %q", err, head)
		}
	}
	_, err = wiretest.ReadFrame(c) // connected
	return c, err
}

func crowdPublish(api, channel string, messages int) error {
	data := strings.Repeat("x", 128)
	body := strings.Repeat(fmt.Sprintf(`,{"channel":%q,"data":%q}`, channel, data), messages)[1:]
	req, err := http.NewRequest("POST", api+"/v1/publish", strings.NewReader("["+body+"]"))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+testAPIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || bytes.Contains(answer, []byte(`"status"`)) {
		return errors.Join(err, fmt.Errorf("publish: %s", answer))
	}
	return nil
}

// cpu returns the processor time that this process has used.
func cpu(b testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFanOut delivers messages to 1,000 connections: one at a time, and
// sixteen that have queued up. Redis and the clients are other processes.
func BenchmarkFanOut(b *testing.B) {
	const connections = 1000
	for _, messages := range []int{1, 16} {
		b.Run(fmt.Sprintf("messages=%d", messages), func(b *testing.B) {
			n := startNode(b, "a", benchRedis(b))
			c := startCrowd(b, n, connections, "open:1")
			c.publish(messages) // everything has been used once
			before := n.metric("gateway_deliveries_total")
			start := cpu(b)
			for b.Loop() {
				c.publish(messages)
			}
			deliveries := float64(b.N * messages * connections)
			b.ReportMetric(float64(b.Elapsed())/deliveries, "ns/delivery")
			b.ReportMetric(float64(cpu(b)-start)/deliveries, "cpu-ns/delivery")
			b.ReportMetric(0, "ns/op")
			if got := n.metric("gateway_deliveries_total") - before; got != deliveries {
				b.Errorf("%v deliveries were counted, want %v", got, deliveries)
			}
		})
	}
}

// benchRedis is a client of a redis-server, as the command makes it.
func benchRedis(b testing.TB) redis.UniversalClient { return dialRedis(b, redistest.Start(b).Addr()) }

// BenchmarkIdleConnections tells what a connection at rest costs in memory. With
// -benchtime 1x: later rounds use again what the first one took.
func BenchmarkIdleConnections(b *testing.B) {
	const connections = 2000
	for b.Loop() {
		n := startNode(b, "a", benchRedis(b))
		first := startCrowd(b, n, 10, "open:1")
		before := memory(b)
		start := cpu(b)
		c := startCrowd(b, n, connections, "open:1")
		used := cpu(b) - start
		await(b, func() error {
			if got := n.metric("gateway_connections"); got != 10+connections {
				return fmt.Errorf("%v connections", got)
			}
			return nil
		})
		after := memory(b)
		b.ReportMetric(float64(after.rss-before.rss)/connections, "rss-B/conn")
		b.ReportMetric(float64(after.heap-before.heap)/connections, "heap-B/conn")
		b.ReportMetric(float64(after.stack-before.stack)/connections, "stack-B/conn")
		b.ReportMetric(float64(used)/connections, "cpu-ns/connect")
		c.close()
		first.close()
		await(b, func() error {
			if got := n.metric("gateway_connections"); got != 0 {
				return fmt.Errorf("%v connections", got)
			}
			return nil
		})
		n.stop()
	}
	b.ReportMetric(0, "ns/op")
}

// memoryUse is what a process uses, in bytes.
type memoryUse struct{ rss, heap, stack int64 }

func memory(b testing.TB) memoryUse {
	runtime.GC()
	runtime.GC() // what had a finalizer, and what pools kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	use := memoryUse{heap: int64(m.HeapAlloc), stack: int64(m.StackInuse)}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return use // elsewhere
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		b.Fatal(err)
	}
	use.rss = resident * int64(os.Getpagesize())
	return use
}

// BenchmarkRoundTrip publishes over one connection and gets the message back.
func BenchmarkRoundTrip(b *testing.B) {
	n := startNode(b, "a", benchRedis(b), func(cfg *gateway.Config) { cfg.Limits.MessagesPerSecond = 1_000_000 })
	c, _ := n.connect(b, "alice", "channel=open:1")
	before := n.metric("gateway_deliveries_total")
	b.ReportAllocs()
	for b.Loop() {
		c.send(`{"type":"publish","channel":"open:1","data":"hello"}`)
		c.expect("message")
	}
	if got := n.metric("gateway_deliveries_total") - before; got != float64(b.N) {
		b.Errorf("%v deliveries, want %d", got, b.N)
	}
}
