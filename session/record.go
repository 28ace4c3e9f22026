package session

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// recordVersion is the first field of a record; a change that older readers
// would misread raises it.
const recordVersion = "1"

var errRecord = errors.New("not a session record")

// record is a session as Redis has it. Fields have one space between them and
// none inside; lua/user.lua describes them.
type record struct {
	generation  uint64
	lease       string
	claim       string
	connectedAt time.Time
	client      string
	details     details
	state       state
}

// state is what a record says of its session besides who has it. It may be
// missing.
type state string

// stateLeft says that the connection itself has told that it is over.
const stateLeft state = "left"

// details are what only people and backends want to know of a session.
type details struct {
	Device string `json:"device,omitempty"`
	IP     string `json:"ip,omitempty"`
}

func (r record) String() string {
	fields := []string{
		recordVersion,
		strconv.FormatUint(r.generation, 10),
		r.lease,
		r.claim,
		strconv.FormatInt(r.connectedAt.UnixMilli(), 10),
		field(r.client),
		field(r.details),
	}
	if r.state != "" {
		fields = append(fields, string(r.state))
	}
	return strings.Join(fields, " ")
}

// owned reports whether a record says that this generation of a session was
// claimed so, and ours whether it is of a version that we know at all.
func owned(text string, generation uint64, lease, claim string) (owned, ours bool) {
	var f [4]string
	for i := range f {
		var more bool
		if f[i], text, more = strings.Cut(text, " "); !more {
			return false, false
		}
	}
	if f[0] != recordVersion {
		return false, false
	}
	return f[1] == strconv.FormatUint(generation, 10) && f[2] == lease && f[3] == claim, true
}

func parseRecord(s string) (record, error) {
	f := strings.Split(s, " ")
	if len(f) < 7 || f[0] != recordVersion {
		return record{}, errRecord
	}
	r := record{lease: f[2], claim: f[3]}
	generation, err := strconv.ParseUint(f[1], 10, 64)
	at, err2 := strconv.ParseInt(f[4], 10, 64)
	err = errors.Join(err, err2, json.Unmarshal([]byte(f[5]), &r.client), json.Unmarshal([]byte(f[6]), &r.details))
	if err != nil {
		return record{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	r.generation, r.connectedAt = generation, time.UnixMilli(at)
	return r, nil
}

// field encodes v as JSON without spaces. v is of strings alone.
func field(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings always encode
	}
	return strings.ReplaceAll(string(b), " ", `\u0020`)
}

// formatChannels joins the channels of a session and those of them that its
// backend gave it, both encoded; none at all is "".
func formatChannels(channels, given string) string {
	if given == "" {
		return channels
	}
	return cmp.Or(channels, "[]") + " " + given
}

// list encodes names; "" if there are none.
func list(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return field(names)
}

// unlist decodes what list encoded; what is damaged is no channel at all.
func unlist(s string) []string {
	names, _ := decodeList(s)
	return names
}

// decodeList decodes what list encoded, and reports whether it did.
func decodeList(s string) (names []string, ok bool) {
	if s == "" {
		return nil, true
	}
	if err := json.Unmarshal([]byte(s), &names); err != nil {
		return nil, false
	}
	return names, true
}

// parseChannels splits what formatChannels joined, both parts still encoded.
func parseChannels(s string) (channels, given string) {
	f := strings.Split(s, " ")
	if len(f) > 1 {
		given = f[1]
	}
	return f[0], given
}
