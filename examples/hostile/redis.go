package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// redis is a connection of a backend to Redis, which speaks as little of RESP as
// it takes here. It is for one goroutine.
type redis struct {
	conn net.Conn
	r    *bufio.Reader
}

func dialRedis(ctx context.Context, socket string) (*redis, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	return &redis{conn, bufio.NewReader(conn)}, nil
}

// do sends commands and returns the answer to the last.
func (c *redis) do(commands ...[]string) (answer any, err error) {
	var b strings.Builder
	for _, command := range commands {
		fmt.Fprintf(&b, "*%d\r\n", len(command))
		for _, arg := range command {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
		}
	}
	if _, err := io.WriteString(c.conn, b.String()); err != nil {
		return nil, err
	}
	for range commands {
		if answer, err = c.read(); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// read reads a value: a string, nil, or an array of values.
func (c *redis) read() (any, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, rest := line[0], strings.TrimSpace(line[1:])
	switch kind {
	case '+', ':':
		return rest, nil
	case '-':
		return nil, errors.New("redis: " + rest)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		return nil, err
	}
	if kind == '$' {
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, b); err != nil {
			return nil, err
		}
		return string(b[:n]), nil
	}
	list := make([]any, n)
	for i := range list {
		if list[i], err = c.read(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// strs returns what is in an array of strings.
func strs(v any) (list []string) {
	array, _ := v.([]any)
	for _, e := range array {
		s, _ := e.(string)
		list = append(list, s)
	}
	return list
}
