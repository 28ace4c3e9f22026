package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
)

func TestRedisURLs(t *testing.T) {
	for text, want := range map[string]redis.UniversalOptions{
		"redis://host":                   {Addrs: []string{"host:6379"}},
		"redis://u:p%40%2Fw@host:1/3":    {Addrs: []string{"host:1"}, Username: "u", Password: "p@/w", DB: 3},
		"REDIS://:p@ss@[::1]:7?db=2":     {Addrs: []string{"[::1]:7"}, Password: "p@ss", DB: 2},
		"redis://[::1]/":                 {Addrs: []string{"[::1]:6379"}},
		"redis://h?username=u&password=": {Addrs: []string{"h:6379"}, Username: "u"},
		"unix:///run/redis.sock?db=1":    {Addrs: []string{"/run/redis.sock"}, DB: 1},
		"unix://u:p@/run/redis.sock":     {Addrs: []string{"/run/redis.sock"}, Username: "u", Password: "p"},
		"redis+cluster://a:1,b:2":        {Addrs: []string{"a:1", "b:2"}, IsClusterMode: true},
		"redis+cluster://u:p@a/0":        {Addrs: []string{"a:6379"}, Username: "u", Password: "p", IsClusterMode: true},
		"redis+sentinel://:p@a,b:5/master/4?sentinel_password=s": {
			Addrs: []string{"a:26379", "b:5"}, Password: "p", MasterName: "master", DB: 4, SentinelPassword: "s"},
	} {
		got, err := parseRedis(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if strings.Join(got.Addrs, " ") != strings.Join(want.Addrs, " ") || got.MasterName != want.MasterName ||
			got.Username != want.Username || got.Password != want.Password || got.DB != want.DB ||
			got.SentinelPassword != want.SentinelPassword || got.IsClusterMode != want.IsClusterMode || got.TLSConfig != nil {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}

func TestRedisURLsWithTLS(t *testing.T) {
	for _, text := range []string{"rediss://h", "rediss+sentinel://h/master", "rediss+cluster://h"} {
		for query, skip := range map[string]bool{"": false, "?skip_verify=true": true} {
			got, err := parseRedis(text + query)
			if err != nil || got.TLSConfig == nil || got.TLSConfig.InsecureSkipVerify != skip {
				t.Errorf("%s: %+v, %v", text+query, got, err)
			}
		}
	}
}

func TestWrongRedisURLsAreRefusedWithoutRepeatingThem(t *testing.T) {
	for text, want := range map[string]error{
		"hunter2":                           errRedisScheme,
		"http://hunter2@h":                  errRedisScheme,
		"redis://":                          errRedisHost,
		"redis://:hunter2/x@h":              errRedisHost,
		"redis://h:99999":                   errRedisHost,
		"redis://h:0":                       errRedisHost,
		"redis://a b":                       errRedisHost,
		"redis://::1":                       errRedisHost,
		"redis://a,b":                       errRedisOneHost,
		"redis+cluster://a,,b":              errRedisHost,
		"redis://u:hunter2%zz@h":            errRedisUser,
		"redis://h/hunter2":                 errRedisDB,
		"redis://h/-1":                      errRedisDB,
		"redis://h?db=hunter2":              errRedisDB,
		"redis://h/1/2":                     errRedisPath,
		"redis+sentinel://h":                errRedisMaster,
		"redis+sentinel://h/":               errRedisMaster,
		"redis+sentinel://h/m/1/2":          errRedisPath,
		"redis+cluster://h/1":               errRedisCluster,
		"redis://h?hunter2=1":               errRedisQuery,
		"redis://h?db=1&db=2":               errRedisQuery,
		"redis://h?password=hunter2%zz":     errRedisQuery,
		"redis://h?sentinel_password=x":     errRedisQuery,
		"redis://h?skip_verify=true":        errRedisQuery,
		"unix://run/redis.sock":             errRedisSocket,
		"unix://":                           errRedisSocket,
		"rediss://h?skip_verify=maybe":      errRedisQuery,
		"redis+sentinel://u:hunter2@h:x/m":  errRedisHost,
		"redis+sentinel://h:26379/m/master": errRedisDB,
	} {
		_, err := parseRedis(text)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats the password: %v", text, err)
		}
	}
}

func FuzzRedisURL(f *testing.F) {
	f.Add("redis+sentinel://u:p@h:1,[::1]:2/m/3?sentinel_password=x")
	f.Add("unix://u@/run/x?db=1")
	f.Add("rediss://h?skip_verify=1")
	f.Fuzz(func(t *testing.T, text string) {
		options, err := parseRedis(text)
		if err == nil && len(options.Addrs) == 0 {
			t.Errorf("%q: no address and no error", text)
		}
	})
}

// lostReplies is a Redis Cluster of one node that serves every slot. It takes
// XADD and hangs up instead of answering.
type lostReplies struct {
	net.Listener
	xadds atomic.Int32
}

func (s *lostReplies) serve() {
	for {
		conn, err := s.Accept()
		if err != nil {
			return
		}
		go s.talk(conn)
	}
}

func (s *lostReplies) talk(conn net.Conn) {
	defer conn.Close()
	port := s.Addr().(*net.TCPAddr).Port
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		request := strings.ToLower(string(buffer[:n]))
		switch {
		case strings.Contains(request, "xadd"):
			s.xadds.Add(1)
			return
		case strings.Contains(request, "slots"):
			fmt.Fprintf(conn, "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$4\r\nnode\r\n", port)
		default: // HELLO, COMMAND and the like: what an old server says
			fmt.Fprint(conn, "-ERR unknown command\r\n")
		}
	}
}

func TestAClusterIsNotSentACommandTwice(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &lostReplies{Listener: listener}
	go server.serve()
	t.Cleanup(func() { listener.Close() })
	options, err := parseRedis("redis+cluster://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	rdb := newRedis(options)
	t.Cleanup(func() { rdb.Close() })
	add := &redis.XAddArgs{Stream: "s", Values: []string{"k", "v"}}

	if err := rdb.XAdd(context.Background(), add).Err(); err == nil {
		t.Error("a command whose answer was lost succeeded")
	}
	if n := server.xadds.Swap(0); n != 1 {
		t.Errorf("the server got the command %d times", n)
	}
	pipe := rdb.Pipeline()
	cmd := pipe.XAdd(context.Background(), add)
	if _, err := pipe.Exec(context.Background()); err == nil || cmd.Err() == nil {
		t.Error("a pipeline whose answer was lost succeeded")
	}
	if n := server.xadds.Load(); n != 1 {
		t.Errorf("the server got the pipelined command %d times", n)
	}
}

// The sessions' commands find a promoted replica as soon as the links do (finding N3).
func TestAClusterIsAskedForItsLayoutWhenAServerIsDead(t *testing.T) {
	c := redistest.StartCluster(t, 3)
	replica := c.StartReplica(t, c.Nodes[0])
	options, err := parseRedis(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := newRedis(options)
	t.Cleanup(func() { client.Close() })
	var key string // on the server that dies
	for i := 0; key == ""; i++ {
		name := fmt.Sprint("k", i)
		if err := client.Set(t.Context(), name, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if c.Nodes[0].CLI("CLUSTER", "COUNTKEYSINSLOT", c.Nodes[0].CLI("CLUSTER", "KEYSLOT", name)) == "1" {
			key = name
		}
	}
	stolen := redistest.TimeStolen(t)
	c.Nodes[0].Kill()
	await := func(what string, condition func() bool) time.Duration {
		t.Helper()
		begin := time.Now()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ; !condition(); <-tick.C {
			if time.Since(begin) > 40*time.Second {
				t.Fatalf("not within 40 s: %s", what)
			}
		}
		return time.Since(begin)
	}
	await("the replica is promoted", replica.IsMaster)
	took := await("a command finds it", func() bool { return client.Set(t.Context(), key, "v", 0).Err() == nil })
	t.Logf("found after %v", took)
	if took > 5*time.Second+stolen() {
		t.Errorf("found %v after the promotion", took)
	}
}

func TestTheClientLogsThroughOursAtDebug(t *testing.T) {
	var out bytes.Buffer
	cfg := &config{LogLevel: "info", LogFormat: "json"}
	redisLogger{newLogger(&out, cfg)}.Printf(context.Background(), "dial %s", "h")
	if out.Len() > 0 {
		t.Errorf("logged at info: %s", &out)
	}
	cfg.LogLevel = "debug"
	redisLogger{newLogger(&out, cfg)}.Printf(context.Background(), "dial %s", "h")
	if !strings.Contains(out.String(), `"message":"dial h"`) || !strings.Contains(out.String(), slog.LevelDebug.String()) {
		t.Errorf("logged %s", &out)
	}
}
