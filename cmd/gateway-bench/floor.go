package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"wssgateway/gateway/wire"
)

// The floor is a server that does the least that any server of this kind must:
// it answers the handshake, and writes each message, prebuilt, to every
// connection in a tight loop. No token is verified, nothing is stored, ordered
// or limited, a peer that is slow is dropped. What is published to an inbox goes
// to its user, all else to everybody.
//
// It takes the same publishes as a gateway, so the scenarios run against it as
// they are, and what they find is how near a gateway comes to the machine.
type floor struct {
	shards []*floorShard

	mu    sync.Mutex // guards what follows; taken before those of the shards
	ids   int64
	users map[string]floorConn
}

// floorConn is a connection, and the shard whose it is.
type floorConn struct {
	shard *floorShard
	fd    int
}

// floorItem is a frame for a connection, or for all.
type floorItem struct {
	frame []byte
	fd    int // 0: all
}

func runFloor(ctx context.Context, args []string, stdout io.Writer) (int, error) {
	f := flag.NewFlagSet("floor", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	listen := f.String("listen", "127.0.0.1:8080", "address for connections; port 0 takes a free one")
	api := f.String("api-listen", "127.0.0.1:9090", "address to publish to")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, "Usage: gateway-bench floor [flags]\n\nA server that does the least that any server must, to compare a gateway with.\n\n")
		f.SetOutput(stdout)
		f.PrintDefaults()
	}
	if err != nil {
		return exitUsage, err
	}
	if err := serveFloor(ctx, *listen, *api, stdout); err != nil {
		return exitFailed, fmt.Errorf("floor: %w", err)
	}
	return exitOK, nil
}

// serveFloor serves until ctx is done.
func serveFloor(ctx context.Context, listen, api string, stdout io.Writer) error {
	fl := &floor{users: make(map[string]floorConn)}
	for range runtime.GOMAXPROCS(0) {
		s, err := newFloorShard(fl)
		if err != nil {
			return err
		}
		fl.shards = append(fl.shards, s)
	}
	address, err := fl.listen(listen)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", api)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "floor: ws://%s/ws, publish to http://%s\n", address, ln.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/publish", fl.publish)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// publish takes a message as the server API of a gateway does.
func (fl *floor) publish(w http.ResponseWriter, r *http.Request) {
	var m struct {
		Channel string          `json:"channel"`
		Data    json.RawMessage `json:"data"`
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := fl.hand(m.Channel, m.Data)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"id":%q,"channel":%q}`, id, m.Channel)
}

// hand hands a message to the shards whose connections get it, and returns its
// id. Each shard gets all messages in the order of their ids.
func (fl *floor) hand(channel string, data []byte) string {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.ids++
	id := fmt.Sprintf("%d-0", fl.ids)
	frame := wire.NewObject("message", "").Str("channel", channel).Str("id", id).Raw("data", string(data)).Frame()
	if user, ok := strings.CutPrefix(channel, wire.Inbox("")); ok {
		if c, found := fl.users[user]; found {
			c.shard.enqueue(floorItem{frame, c.fd})
		}
		return id
	}
	for _, s := range fl.shards {
		s.enqueue(floorItem{frame, 0})
	}
	return id
}
