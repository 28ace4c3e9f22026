package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"wssgateway/broker"
	"wssgateway/gateway/wire"
)

// subscriber is one user with one connection, and what came for it.
type subscriber struct {
	bench  *bench
	number int
	user   string
	rooms  []string
	token  string

	session string
	link    *link
	done    chan struct{} // closed when nothing reads link any more
	cutting bool          // set before link is cut on purpose
	ping    time.Duration

	// Guarded by mu: the goroutine that reads writes, the end of the run reads.
	mu      sync.Mutex
	streams map[string]*stream
	latency []time.Duration
	err     error // why reading ended, if it should not have
}

// stream is what came on a channel.
type stream struct {
	last       broker.ID
	seen       []uint64 // bits: numbers of messages that have come
	repeated   int
	disordered int
}

// take notes a message, and reports whether it is new.
func (s *stream) take(id broker.ID, n int) bool {
	if !id.IsZero() && id.Compare(s.last) <= 0 {
		s.disordered++
	}
	s.last = id
	word, bit := n/64, uint64(1)<<(n%64)
	for len(s.seen) <= word {
		s.seen = append(s.seen, 0)
	}
	if s.seen[word]&bit != 0 {
		s.repeated++
		return false
	}
	s.seen[word] |= bit
	return true
}

func (s *stream) has(n int) bool {
	return n/64 < len(s.seen) && s.seen[n/64]&(1<<(n%64)) != 0
}

func (s *stream) count() (n int) {
	for _, word := range s.seen {
		n += bits.OnesCount64(word)
	}
	return n
}

// channels returns the channels that the subscriber gets messages of.
func (s *subscriber) channels() []string {
	return append([]string{wire.Inbox(s.user), wire.Broadcast}, s.rooms...)
}

// connect connects, with the session and the positions of before if there are
// any, and begins to read.
func (s *subscriber) connect(ctx context.Context) error {
	b := s.bench
	l, err := dial(ctx, b.urls[s.number%len(b.urls)], s.query(), s.number)
	if err != nil {
		return err
	}
	g, err := l.greet()
	if err == nil {
		err = s.welcome(g)
	}
	if err != nil {
		l.cut()
		return fmt.Errorf("%s: %w", s.user, err)
	}
	s.session, s.link, s.done = g.Session, l, make(chan struct{})
	s.ping = time.Duration(g.Ping) * time.Second
	go s.read(l, s.done)
	return nil
}

// query is the connect request as the query string has it.
func (s *subscriber) query() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var q strings.Builder
	q.WriteString("access_token=" + s.token)
	if s.session != "" {
		q.WriteString("&session=" + s.session)
	}
	for _, channel := range s.channels() {
		if st := s.streams[channel]; st != nil && !st.last.IsZero() {
			q.WriteString("&channel=" + url.QueryEscape(channel+"@"+st.last.String()))
		} else if channel != wire.Broadcast && channel != wire.Inbox(s.user) {
			q.WriteString("&channel=" + url.QueryEscape(channel))
		}
	}
	return q.String()
}

// welcome checks what the server said, and takes the positions from where there
// was none.
func (s *subscriber) welcome(g greeting) error {
	if s.session != "" && !g.Resumed {
		s.bench.fresh.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for channel, c := range g.Channels {
		if c.Error != "" {
			return fmt.Errorf("%s: %s", channel, c.Error)
		}
		if !c.Recovered {
			s.bench.gaps.Add(1)
		}
		st := s.stream(channel)
		if st.last.IsZero() && c.Last != "" {
			id, err := broker.ParseID(c.Last)
			if err != nil {
				return err
			}
			st.last = id
		}
	}
	return nil
}

// stream returns the stream of a channel. s.mu is held.
func (s *subscriber) stream(channel string) *stream {
	st := s.streams[channel]
	if st == nil {
		st = &stream{}
		s.streams[channel] = st
	}
	return st
}

func (s *subscriber) read(l *link, done chan struct{}) {
	defer close(done)
	for {
		op, payload, err := l.next()
		if err == nil && op == wire.OpClose {
			err = fmt.Errorf("closed: %q", payload)
		}
		if err == nil && op == wire.OpText {
			err = s.frame(payload)
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// fail notes that the connection has ended, if it should not have.
func (s *subscriber) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cutting {
		s.err = errors.Join(s.err, err)
		s.bench.dropped.Add(1)
	}
}

var messageStart = []byte(`{"type":"message","channel":"`)

// frame takes in a text frame.
func (s *subscriber) frame(payload []byte) error {
	now := s.bench.now()
	if !bytes.HasPrefix(payload, messageStart) {
		if bytes.HasPrefix(payload, []byte(`{"type":"reset"`)) {
			s.bench.gaps.Add(1)
		}
		return nil
	}
	m, err := parseMessage(payload[len(messageStart):])
	if err != nil {
		return fmt.Errorf("message %s: %w", payload, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[string(m.channel)]
	if st == nil {
		st = s.stream(string(m.channel))
	}
	if st.take(m.id, m.note.n) {
		s.latency = append(s.latency, now-m.note.at)
	}
	s.bench.arrived(m.note.n)
	return nil
}

// arrival is a message of this program's, as it comes.
type arrival struct {
	channel []byte
	id      broker.ID
	note    note
}

var errForeign = errors.New("not one that was published here")

// parseMessage parses what follows messageStart.
func parseMessage(b []byte) (m arrival, err error) {
	channel, rest, ok := bytes.Cut(b, []byte{'"'})
	if !ok {
		return m, errForeign
	}
	m.channel = channel
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"id":"`)); ok {
		var id []byte
		id, rest, _ = bytes.Cut(rest, []byte{'"'})
		if m.id, err = broker.ParseID(string(id)); err != nil {
			return m, err
		}
	}
	i := bytes.Index(rest, noteStart)
	if i < 0 {
		return m, errForeign
	}
	m.note, err = parseNote(rest[i+len(noteStart):])
	return m, err
}

// note is what the data of a message says: its number, and when it was
// published, since the start of the program.
type note struct {
	n  int
	at time.Duration
}

var noteStart = []byte(`"data":{"n":`)

// appendData appends the data of a message, of about size bytes.
func (n note) appendData(b []byte, size int) []byte {
	start := len(b)
	b = strconv.AppendInt(append(b, `{"n":`...), int64(n.n), 10)
	b = strconv.AppendInt(append(b, `,"at":`...), int64(n.at), 10)
	b = append(b, `,"pad":"`...)
	for len(b)-start < size-2 {
		b = append(b, 'x')
	}
	return append(b, `"}`...)
}

// parseNote parses what follows noteStart.
func parseNote(b []byte) (note, error) {
	number, rest := cutInt(b)
	rest, ok := bytes.CutPrefix(rest, []byte(`,"at":`))
	if !ok {
		return note{}, errForeign
	}
	at, _ := cutInt(rest)
	return note{number, time.Duration(at)}, nil
}

func cutInt(b []byte) (n int, rest []byte) {
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		n = n*10 + int(b[i]-'0')
	}
	return n, b[i:]
}

// cut ends the connection, and returns when nothing is read any more.
func (s *subscriber) cut() {
	s.mu.Lock()
	s.cutting = true
	s.mu.Unlock()
	s.link.cut()
	<-s.done
	s.mu.Lock()
	s.cutting = false
	s.mu.Unlock()
}
