package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"

	"wssgateway/gateway/wire"
)

// floorShard is a part of the floor's connections: a loop that reads (epoll(7))
// and one that writes.
type floorShard struct {
	floor *floor
	epoll int
	wake  chan struct{} // size 1: queue is not empty

	mu    sync.Mutex // guards what follows
	queue []floorItem
	conns map[int]string // user by descriptor; "" before the handshake
}

func newFloorShard(fl *floor) (*floorShard, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	s := &floorShard{floor: fl, epoll: epoll, wake: make(chan struct{}, 1), conns: make(map[int]string)}
	go s.readAll()
	go s.writeAll()
	return s, nil
}

func (s *floorShard) enqueue(it floorItem) {
	s.mu.Lock()
	s.queue = append(s.queue, it)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// writeAll writes what has queued up, in rounds: frames for everybody in one
// piece.
func (s *floorShard) writeAll() {
	var queue []floorItem
	var all []int
	for range s.wake {
		s.mu.Lock()
		queue, s.queue = s.queue, queue[:0]
		all = all[:0]
		for fd, user := range s.conns {
			if user != "" {
				all = append(all, fd)
			}
		}
		s.mu.Unlock()
		var frames []byte
		for _, it := range queue {
			if it.fd != 0 {
				s.write(it.fd, it.frame)
			} else {
				frames = append(frames, it.frame...)
			}
		}
		if len(frames) > 0 {
			for _, fd := range all {
				s.write(fd, frames)
			}
		}
	}
}

func (s *floorShard) write(fd int, b []byte) {
	if n, err := syscall.Write(fd, b); err != nil || n < len(b) {
		_ = syscall.Shutdown(fd, syscall.SHUT_RDWR) // too slow: the reader closes it
	}
}

// readAll answers handshakes and swallows what comes after them.
func (s *floorShard) readAll() {
	events := make([]syscall.EpollEvent, 256)
	buf := make([]byte, 16<<10)
	for {
		n, err := syscall.EpollWait(s.epoll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			panic(fmt.Sprintf("epoll_wait: %v", err)) // the descriptor is ours, and open
		}
		for _, e := range events[:max(n, 0)] {
			s.read(int(e.Fd), buf)
		}
	}
}

func (s *floorShard) read(fd int, buf []byte) {
	n, err := syscall.Read(fd, buf)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return
	}
	if n <= 0 || !s.greeted(fd) && s.greet(fd, buf[:n]) != nil {
		s.close(fd)
	}
}

func (s *floorShard) greeted(fd int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[fd] != ""
}

func (s *floorShard) close(fd int) {
	s.mu.Lock()
	user := s.conns[fd]
	delete(s.conns, fd)
	s.mu.Unlock()
	s.floor.mu.Lock()
	if c := s.floor.users[user]; c.shard == s && c.fd == fd {
		delete(s.floor.users, user)
	}
	s.floor.mu.Unlock()
	_ = syscall.Close(fd)
}

// greet answers a handshake, which must have come in one piece, and says that
// the user whom the token names is connected.
func (s *floorShard) greet(fd int, b []byte) error {
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return err
	}
	user, err := subject(req.URL.Query().Get("access_token"))
	if err != nil {
		return err
	}
	accept := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	answer := fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(accept[:]))
	answer = append(answer, wire.NewObject("connected", "").Str("session", "s_"+user).Str("user", user).Bool("resumed", true).Frame()...)
	s.mu.Lock()
	s.conns[fd] = user
	s.mu.Unlock()
	s.floor.mu.Lock()
	s.floor.users[user] = floorConn{s, fd}
	s.floor.mu.Unlock()
	s.write(fd, answer)
	return nil
}

// subject returns whom a token names, unverified.
func subject(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("not a token")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct{ Sub string }
	if err := json.Unmarshal(b, &claims); err != nil || claims.Sub == "" {
		return "", fmt.Errorf("token names nobody: %w", err)
	}
	return claims.Sub, nil
}

// listen accepts connections, and deals them to the shards, until the process
// ends.
func (fl *floor) listen(address string) (string, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		return "", err
	}
	go func() {
		for i := 0; ; i++ {
			// Fd makes the descriptor one that blocks.
			conn, _, err := syscall.Accept4(int(file.Fd()), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			switch {
			case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.ECONNABORTED):
				continue
			case err != nil:
				panic(fmt.Sprintf("floor: accept: %v", err))
			}
			s := fl.shards[i%len(fl.shards)]
			_ = syscall.SetsockoptInt(conn, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
			event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(conn)}
			if err := syscall.EpollCtl(s.epoll, syscall.EPOLL_CTL_ADD, conn, &event); err != nil {
				_ = syscall.Close(conn)
			}
		}
	}()
	return ln.Addr().String(), ln.Close()
}
