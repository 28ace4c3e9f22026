package transport

import (
	"compress/flate"
	"errors"
	"io"
	"sync"
)

// inflateTail ends every compressed message: what the sender has taken away (RFC
// 7692, section 7.2.2), and a final block, so that the inflater sees an end.
const inflateTail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

// inflater inflates one message at a time, and keeps nothing of it: its source is
// that message alone and hands out single bytes, so nothing is read ahead.
type inflater struct {
	flate  io.Reader
	source inflateSource
	out    []byte
}

// inflateSource is a message and the tail.
type inflateSource struct {
	message []byte
	tail    string
}

// ReadByte implements io.ByteReader.
func (s *inflateSource) ReadByte() (byte, error) {
	if len(s.message) > 0 {
		b := s.message[0]
		s.message = s.message[1:]
		return b, nil
	}
	if len(s.tail) > 0 {
		b := s.tail[0]
		s.tail = s.tail[1:]
		return b, nil
	}
	return 0, io.EOF
}

// Read implements io.Reader.
func (s *inflateSource) Read(p []byte) (int, error) {
	n := copy(p, s.message)
	s.message = s.message[n:]
	if n == 0 {
		n = copy(p, s.tail)
		s.tail = s.tail[n:]
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

var inflaters = sync.Pool{New: func() any {
	return &inflater{flate: flate.NewReader(&inflateSource{})}
}}

// inflate returns what a message without context takeover inflates to, at most
// limit bytes (RFC 7692, section 7.2.2). The result belongs to the caller.
func inflate(message []byte, limit int) ([]byte, *Cause) {
	if len(message) == 0 {
		return nil, nil
	}
	f := inflaters.Get().(*inflater)
	defer f.release()
	f.source = inflateSource{message, inflateTail}
	if err := f.flate.(flate.Resetter).Reset(&f.source, nil); err != nil {
		return nil, Violation
	}
	if err := f.read(limit); err != nil {
		return nil, err
	}
	return append([]byte(nil), f.out...), nil
}

// release gives the inflater back without anything of the message.
func (f *inflater) release() {
	f.source = inflateSource{}
	f.out = f.out[:0]
	inflaters.Put(f)
}

// read fills out. All of the message must be used; behind a final block may stand
// the one byte of an empty one (RFC 7692, section 7.2.3.4).
func (f *inflater) read(limit int) *Cause {
	f.out = f.out[:0]
	for {
		if len(f.out) == cap(f.out) {
			f.out = append(f.out, 0)[:len(f.out)]
		}
		n, err := f.flate.Read(f.out[len(f.out):min(cap(f.out), limit+1)])
		f.out = f.out[:len(f.out)+n]
		switch rest := f.source.message; {
		case len(f.out) > limit:
			return TooBig
		case errors.Is(err, io.EOF) && (len(rest) == 0 || len(rest) == 1 && rest[0] == 0):
			return nil
		case err != nil:
			return Violation
		}
	}
}
