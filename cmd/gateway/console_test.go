package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/redis/go-redis/v9"
)

func getConsole(t *testing.T, target string) *httptest.ResponseRecorder {
	t.Helper()
	cfg := defaultConfig(true)
	w := httptest.NewRecorder()
	newConsole(&cfg).ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w
}

func TestConsoleServesThePage(t *testing.T) {
	w := getConsole(t, "http://localhost:8080/")
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), "<!doctype html>") {
		t.Errorf("%d %.40q", w.Code, w.Body)
	}
	if w := getConsole(t, "http://localhost/nothing"); w.Code != http.StatusNotFound {
		t.Errorf("/nothing: %d", w.Code)
	}
}

func TestConsolePageNeedsNothingElseAndShowsTextOnly(t *testing.T) {
	page := string(consolePage)
	for _, bad := range []string{"src=", "href=", "@import", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

func TestConsoleTokens(t *testing.T) {
	w := getConsole(t, "http://127.0.0.1:8080/console/token?user=zoë")
	var c claims
	_, err := jwt.ParseWithClaims(w.Body.String(), &c, func(*jwt.Token) (any, error) { return []byte(developmentSecret), nil })
	if err != nil || c.Subject != "zoë" {
		t.Errorf("token %q: %+v, %v", w.Body, c, err)
	}
	for _, bad := range []string{"", "?user=", "?user=bob+smith", "?user=bob%00"} { // finding U5
		if w := getConsole(t, "http://127.0.0.1/console/token"+bad); w.Code != http.StatusBadRequest {
			t.Errorf("%q: %d", bad, w.Code)
		}
	}
}

func TestEmbeddedRedisIsReachable(t *testing.T) {
	embedded, err := startEmbeddedRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	options, err := parseRedis("redis://" + embedded.Addr())
	if err != nil {
		t.Fatal(err)
	}
	rdb := newRedis(options)
	defer rdb.Close()
	if id, err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: "s", Values: []string{"k", "v"}}).Result(); err != nil || id == "" {
		t.Errorf("XADD: %q, %v", id, err)
	}
	if host, _, _ := net.SplitHostPort(embedded.Addr()); host != "127.0.0.1" {
		t.Errorf("it listens on %s", embedded.Addr())
	}
}

func TestGreetingHasLinesToPaste(t *testing.T) {
	var out strings.Builder
	addr := func(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
	greeting{public: addr(8080), admin: addr(9090), redis: "redis://127.0.0.1:7", apiKey: "dev", token: "a.b.c"}.print(&out)
	for _, want := range []string{
		"ws://127.0.0.1:8080/ws", "http://127.0.0.1:8080/", "redis://127.0.0.1:7", "\n  a.b.c\n",
		`new WebSocket("ws://127.0.0.1:8080/ws?channel=room:42&access_token=a.b.c")`,
		`curl -H 'Authorization: Bearer dev' http://127.0.0.1:9090/v1/publish -d '{"channel":"room:42","event":"chat","data":{"text":"hi"}}'`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &out)
		}
	}
}
