package main

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"wssgateway/broker/redistest"
)

// TestANodeSaysWhyItWaitsForRedis: in one line of the log, at /readyz and to
// healthcheck, and it says that it serves only when it does (finding U4).
func TestANodeSaysWhyItWaitsForRedis(t *testing.T) {
	for _, test := range []struct {
		name     string
		away     func(*redistest.Server, *redistest.Proxy)
		back     func(*testing.T, *redistest.Server, *redistest.Proxy)
		log, why string
	}{
		{
			"a wrong password",
			func(s *redistest.Server, _ *redistest.Proxy) { s.CLI("config", "set", "requirepass", "right") },
			func(t *testing.T, s *redistest.Server, _ *redistest.Proxy) {
				admin := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: "right", Protocol: 2})
				defer admin.Close()
				if err := admin.ConfigSet(t.Context(), "requirepass", "hunter2").Err(); err != nil {
					t.Fatal(err)
				}
			},
			"WRONGPASS invalid username-password pair or user is disabled.",
			"not ready: redis: refuses the user or the password",
		},
		{
			"nobody listens",
			func(s *redistest.Server, _ *redistest.Proxy) { s.Kill() },
			func(_ *testing.T, s *redistest.Server, _ *redistest.Proxy) {
				s.Restart()
				s.CLI("config", "set", "requirepass", "hunter2")
			},
			"", "not ready: redis: ",
		},
		{
			"a black hole",
			func(s *redistest.Server, p *redistest.Proxy) {
				s.CLI("config", "set", "requirepass", "hunter2")
				p.Blackhole(true)
			},
			func(_ *testing.T, _ *redistest.Server, p *redistest.Proxy) { p.Blackhole(false) },
			"no answer", "not ready: redis: no answer",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.NewProxy(t, server.Addr())
			test.away(server, proxy)
			p := startProgram(t, []string{"GATEWAY_REDIS=redis://:hunter2@" + proxy.Addr()})
			for range 2 {
				p.await(t, `"waiting for redis at `+proxy.Addr()+": "+test.log)
			}
			answer := get(t, "http://"+p.public+"/readyz")
			if !strings.HasPrefix(answer, test.why) || strings.Contains(answer, "127.0.0.1") {
				t.Errorf("/readyz says %q", answer)
			}
			got := runBinary(t, nil, "healthcheck", "--ready", "--admin-listen", p.admin)
			if got.code != exitFailed || !strings.HasSuffix(got.stderr, ": answered 503 Service Unavailable: "+answer) {
				t.Errorf("healthcheck: %+v", got)
			}
			if status, err := post(t, p.admin); err != nil || status != http.StatusServiceUnavailable {
				t.Errorf("a publish meanwhile: %d, %v", status, err)
			}
			test.back(t, server, proxy)
			p.await(t, `"msg":"serving"`)
			p.awaitReady(t)
			if status, err := post(t, p.admin); err != nil || status != http.StatusOK {
				t.Errorf("a publish afterwards: %d, %v", status, err)
			}
			said := strings.Join(p.said, "\n")
			if n := strings.Count(said, `"msg":"serving"`); n != 1 || strings.Contains(said, "hunter2") || strings.Contains(said, "heartbeat failed") {
				t.Errorf("log:\n%s", said)
			}
		})
	}
}

// TestANodeThatLosesRedisSaysWhy: /readyz does, as at the start (finding U4).
func TestANodeThatLosesRedisSaysWhy(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := startProgram(t, []string{"GATEWAY_REDIS=" + server.URL()})
	p.awaitReady(t)
	server.Kill()
	tick := time.NewTicker(50 * time.Millisecond) // between two looks
	defer tick.Stop()
	answer, deadline := "", time.Now().Add(patience)
	for answer != "not ready: redis: connection refused\n" {
		if time.Now().After(deadline) {
			t.Fatalf("/readyz says %q", answer)
		}
		<-tick.C
		answer = get(t, "http://"+p.public+"/readyz")
	}
}

// TestReasonsWhyRedisDoesNotAnswer: what /readyz says has no address in it.
func TestReasonsWhyRedisDoesNotAnswer(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	server := redistest.Start(t)
	secure := httptest.NewTLSServer(nil) // with a certificate that nobody vouches for
	defer secure.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	for address, want := range map[string]error{
		"redis://" + closed.Addr().String():           errRedisRefused,
		"unix:///nowhere/redis.sock":                  errRedisSocketGone,
		"rediss://" + secure.Listener.Addr().String(): errRedisTLS,
		"redis://nobody:password@" + server.Addr():    errRedisAuth,
	} {
		options, err := parseRedis(address)
		if err != nil {
			t.Fatal(err)
		}
		client := newRedis(options)
		err = client.Ping(t.Context()).Err()
		_ = client.Close()
		if got := redisTrouble(err); err == nil || !errors.Is(got, want) {
			t.Errorf("%s: %v for %v", address, got, err)
		}
	}
}

// TestCommandsOfAPipelineFailWithTheirConnection: not one of them looks like one that
// was carried out (finding U4).
func TestCommandsOfAPipelineFailWithTheirConnection(t *testing.T) {
	server := redistest.Start(t)
	options, err := parseRedis("redis://nobody:wrong@" + server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	client := newRedis(options)
	defer client.Close()
	pipe := client.Pipeline()
	set, get := pipe.Set(t.Context(), "a", 1, 0), pipe.Get(t.Context(), "a")
	_, err = pipe.Exec(t.Context())
	for _, got := range []error{err, set.Err(), get.Err()} {
		if got == nil || !errors.Is(redisTrouble(got), errRedisAuth) {
			t.Errorf("error %v, want the one of the connection", got)
		}
	}
}
