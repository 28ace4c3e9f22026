package lab_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"wssgateway/examples/lab"
)

// TestPausedNodeClosesNobody: clients that answer pings stay, however long the node
// was stopped, and it is theirs again (finding A16).
func TestPausedNodeClosesNobody(t *testing.T) {
	t.Parallel()
	const clients, timeout = 50, 3 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	l, err := lab.New(ctx, fmt.Sprintf("limits: {clients: {web: {timeout: %s}}}", timeout))
	t.Cleanup(func() { _ = l.Close() })
	if err != nil {
		t.Fatal(err)
	}
	node, err := l.AddNode("paused")
	if err != nil {
		t.Fatal(err)
	}
	if err := node.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	var connected, pongs, ended atomic.Int32
	for i := range clients {
		token, err := lab.Token(fmt.Sprint("user-", i))
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := websocket.Dial(ctx, "ws://"+node.Public+"/ws?connect=1&access_token="+token, &websocket.DialOptions{
			OnPingReceived: func(context.Context, []byte) bool { pongs.Add(1); return true },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.CloseNow() })
		go func() {
			for {
				_, b, err := c.Read(ctx)
				if err != nil {
					ended.Add(1)
					return
				}
				if strings.Contains(string(b), `"connected"`) {
					connected.Add(1)
				}
			}
		}()
	}
	await(ctx, t, "all are connected", func() bool { return connected.Load() == clients })
	if err := syscall.Kill(node.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := lab.Pause(ctx, 2*timeout); err != nil { // what is tested is this time
		t.Fatal(err)
	}
	if err := syscall.Kill(node.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	before := pongs.Load()
	await(ctx, t, "everybody was pinged thrice, or is gone", func() bool { return pongs.Load()-before >= 3*clients || ended.Load() > 0 })
	if n := ended.Load(); n > 0 {
		t.Errorf("%d of %d clients were closed", n, clients)
	}
	cancel()
	await(context.Background(), t, "all have ended", func() bool { return ended.Load() == clients })
}
