package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"slices"
	"testing"
	"time"

	"wssgateway/client"
)

// example is a gateway for the examples: what a test has, without a test.
type example struct {
	testing.TB
	url  string
	ends []func()
}

func (*example) Helper()                   {}
func (e *example) Cleanup(f func())        { e.ends = append(e.ends, f) }
func (*example) Fatal(args ...any)         { log.Panic(args...) }
func (*example) Fatalf(f string, a ...any) { log.Panicf(f, a...) }
func (*example) Errorf(f string, a ...any) { log.Panicf(f, a...) }

func startExample() *example {
	e := &example{}
	e.url = "ws://" + startNodes(e, "a")[0].addr + "/ws"
	return e
}

func (e *example) stop() {
	for _, end := range slices.Backward(e.ends) {
		end()
	}
}

// fetchToken stands for asking your own backend for a token.
func fetchToken(user string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token(user, time.Hour), nil }
}

// A client that shows what is said in a room, and says something itself.
func Example() {
	gateway := startExample()
	defer gateway.stop()

	c, err := client.New(gateway.url, client.Options{Token: fetchToken("alice")})
	if err != nil {
		log.Fatal(err)
	}
	shown := make(chan struct{})
	_, err = c.Subscribe("room:42", client.Handler{
		Message: func(m client.Message) {
			fmt.Printf("%s: %s\n", m.From, m.Data)
			close(shown)
		},
		Gap: func(channel, _ string) { fmt.Println("load anew what is shown of", channel) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()

	if _, err := c.Publish(ctx, client.Message{Channel: "room:42", Data: json.RawMessage(`{"text":"hi"}`)}); err != nil {
		log.Fatal(err)
	}
	<-shown
	stop()
	fmt.Println("ended:", <-ended)
	// Output:
	// alice: {"text":"hi"}
	// ended: <nil>
}

// A client that was away goes on where it was: it has stored its position.
func ExampleClient_Subscribe() {
	gateway := startExample()
	defer gateway.stop()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c, err := client.New(gateway.url, client.Options{Token: fetchToken("alice")})
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = c.Run(ctx) }()
	var stored string
	for i := range 3 {
		id, err := c.Publish(ctx, client.Message{Channel: "room:42", Data: fmt.Append(nil, i)})
		if err != nil {
			log.Fatal(err)
		}
		if i == 0 {
			stored = id // the last one that was shown before it went away
		}
	}

	shown := make(chan client.Message)
	_, err = c.Subscribe("room:42", client.Handler{Message: func(m client.Message) { shown <- m }}, stored)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", (<-shown).Data)
	fmt.Printf("%s\n", (<-shown).Data)
	// Output:
	// 1
	// 2
}

func ExampleClient_History() {
	gateway := startExample()
	defer gateway.stop()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c, err := client.New(gateway.url, client.Options{Token: fetchToken("alice")})
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = c.Run(ctx) }()
	for _, word := range []string{`"one"`, `"two"`} {
		if _, err := c.Publish(ctx, client.Message{Channel: "room:42", Data: json.RawMessage(word)}); err != nil {
			log.Fatal(err)
		}
	}
	messages, complete, err := c.History(ctx, "room:42", "0", 10)
	for _, m := range messages {
		fmt.Printf("%s from %s\n", m.Data, m.From)
	}
	fmt.Println(complete, err)
	// Output:
	// "one" from alice
	// "two" from alice
	// true <nil>
}

func ExampleClient_Presence() {
	gateway := startExample()
	defer gateway.stop()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c, err := client.New(gateway.url, client.Options{Token: fetchToken("alice")})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Subscribe("who:42", client.Handler{}); err != nil {
		log.Fatal(err)
	}
	go func() { _ = c.Run(ctx) }()
	members, count, err := c.Presence(ctx, "who:42")
	fmt.Println(members, count, err)
	// Output: [{alice 1}] 1 <nil>
}
