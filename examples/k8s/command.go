package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	examples "wssgateway/examples/lab"
)

// cmd is a program that is run to its end, and whose output is shown if it fails.
type cmd struct {
	*exec.Cmd
	words string
}

func command(ctx context.Context, name string, args ...string) *cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.WaitDelay = 5 * time.Second
	return &cmd{c, strings.Join(append([]string{name}, args...), " ")}
}

func kubectl(ctx context.Context, args ...string) *cmd { return command(ctx, "kubectl", args...) }

// feed gives the program its input.
func (c *cmd) feed(input string) *cmd {
	c.Stdin = strings.NewReader(input)
	return c
}

func (c *cmd) run() error {
	_, err := c.output()
	return err
}

// output returns what the program wrote to its standard output.
func (c *cmd) output() (string, error) {
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", c.words, err, tail(out.String()), tail(errs.String()))
	}
	return out.String(), nil
}

// object runs kubectl get and decodes what it says.
func object[T any](ctx context.Context, args ...string) (T, error) {
	var v T
	out, err := kubectl(ctx, append(append([]string{"get"}, args...), "-o", "json")...).output()
	if err == nil {
		err = json.Unmarshal([]byte(out), &v)
	}
	return v, err
}

func tail(text string) string {
	const most = 3000
	return text[max(0, len(text)-most):]
}

func lookPath(name string) (string, error) { return exec.LookPath(name) }

// await calls ready until it is, or fails, or the time is over.
func await(ctx context.Context, limit time.Duration, what string, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		ok, err := ready()
		if ok {
			return nil
		}
		if examples.Pause(ctx, 300*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("waited %v for %s", limit, what), err)
		}
	}
}
