package redistest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEmbeddedIsReachedByAddress(t *testing.T) {
	m := Embedded(t)
	if err := EmbeddedClient(t, m).Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, options(m.Addr()))
	if got, err := client.Get(t.Context(), "k").Result(); err != nil || got != "v" {
		t.Errorf("GET over TCP = %q, %v", got, err)
	}
}

func TestInMemoryKeysExpireByFakeClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := EmbeddedClient(t, InMemory(t))
		if err := client.Set(t.Context(), "k", "v", time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + time.Second)
		if n, err := client.Exists(t.Context(), "k").Result(); err != nil || n != 0 {
			t.Errorf("EXISTS after the TTL = %d, %v", n, err)
		}
	})
}

func TestInMemoryTakesLongPipelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := EmbeddedClient(t, InMemory(t))
		pipe := client.Pipeline()
		for range 100 {
			pipe.Echo(t.Context(), strings.Repeat("x", 10_000))
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
