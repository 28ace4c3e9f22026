package broker

import (
	"hash/fnv"
	"strconv"
	"strings"
)

// layout names the keys and pub/sub channels in Redis; docs/redis.md describes
// them. Channels are spread over lanes. All keys of a lane share a hash tag, so
// that in a Cluster one script may touch them and one link can subscribe to
// their (sharded) pub/sub channels.
type layout struct {
	prefix  string
	lanes   int
	sharded bool // Cluster: sharded pub/sub, whose channels need the tag too
}

// laneOf returns the number of the lane that channel belongs to.
func (l layout) laneOf(channel string) int {
	if l.lanes == 1 {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(channel)) // never fails (hash.Hash)
	return int(h.Sum32() % uint32(l.lanes))
}

func (l layout) tag(lane int) string { return l.prefix + "{" + strconv.Itoa(lane) + "}:" }

func (l layout) epoch(lane int) string { return l.tag(lane) + "epoch" }

// agreed names the set of nodes that know of no epoch before a lane's first one.
func (l layout) agreed(lane int) string { return l.tag(lane) + "agreed" }

// tally names the count of a node's pipelines that have stored something.
func (l layout) tally(lane int, node string) string { return l.tag(lane) + "tally:" + node }

func (l layout) stream(channel string) string { return l.tag(l.laneOf(channel)) + "stream:" + channel }

func (l layout) meta(channel string) string { return l.tag(l.laneOf(channel)) + "meta:" + channel }

// members and users name who is a member of a channel, by session and by user.
func (l layout) members(channel string) string {
	return l.tag(l.laneOf(channel)) + "members:" + channel
}
func (l layout) users(channel string) string { return l.tag(l.laneOf(channel)) + "users:" + channel }

// stored returns the keys that storing a message on a channel takes, in the
// order of the scripts.
func (l layout) stored(channel string) []string {
	keys := make([]string, 0, 6) // some scripts take two more
	return append(keys, l.stream(channel), l.meta(channel), l.epoch(l.laneOf(channel)), l.live(channel))
}

// laneOfKey returns the lane whose tag a key has, if any.
func (l layout) laneOfKey(key string) (lane int, ok bool) {
	if l.lanes == 1 {
		return 0, true
	}
	rest, ok := strings.CutPrefix(key, l.prefix+"{")
	if !ok {
		return 0, false
	}
	number, _, ok := strings.Cut(rest, "}:")
	if !ok {
		return 0, false
	}
	lane, err := strconv.Atoi(number)
	return lane, err == nil && lane >= 0 && lane < l.lanes
}

// callStreams names the set of the streams of calls.
func (l layout) callStreams() string { return l.prefix + "calls" }

// calls returns the keys of a stream of calls. The tag of the second is the name
// of the first, so that a Cluster keeps them together.
func (l layout) calls(stream string) []string {
	name := l.prefix + "calls:" + stream
	return []string{name, l.prefix + "{" + name + "}:trimmed"}
}

// key names an idempotency key. A channel and a scope have no white space, so
// two different triples never share a name.
func (l layout) key(channel, scope, key string) string {
	return l.tag(l.laneOf(channel)) + "key:" + channel + " " + scope + " " + key
}

// live returns the pub/sub channel that carries channel.
func (l layout) live(channel string) string {
	return l.livePrefix(l.laneOf(channel)) + channel
}

func (l layout) livePrefix(lane int) string {
	if l.sharded {
		return l.tag(lane) + "live:"
	}
	return l.prefix + "live:"
}

// probe returns the pub/sub channel on which a node hears itself.
func (l layout) probe(lane int, node string) string {
	if l.sharded {
		return l.tag(lane) + "probe:" + node
	}
	return l.prefix + "probe:" + node
}

// channel returns the channel that a pub/sub channel of a lane carries.
func (l layout) channel(lane int, live string) (string, bool) {
	return strings.CutPrefix(live, l.livePrefix(lane))
}
