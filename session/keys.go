package session

// layout names the keys in Redis. Those that one script touches share a hash
// tag, so that a Cluster keeps them together.
type layout struct{ prefix string }

// user returns the keys of a user's sessions, in the order of the scripts.
func (l layout) user(user string) []string {
	return []string{l.sessions(user), l.left(user), l.channels(user), l.prefix + "{user:" + user + "}:ended"}
}

// left returns the key of when the windows of a user's sessions are over.
func (l layout) left(user string) string { return l.prefix + "{user:" + user + "}:left" }

// sessions returns the key of the records of a user's sessions.
func (l layout) sessions(user string) string { return l.prefix + "{user:" + user + "}:sessions" }

// channels returns the key of the channels of a user's sessions.
func (l layout) channels(user string) string { return l.prefix + "{user:" + user + "}:channels" }

// claim returns the keys of a claim: those of the user's sessions, and the acks.
func (l layout) claim(user string) []string { return append(l.user(user), l.acks(user)) }

// acks returns the key of how far the devices of a user have read the inbox.
func (l layout) acks(user string) string { return l.prefix + "{user:" + user + "}:acks" }

// nodes returns the keys of the leases, in the order of the scripts.
func (l layout) nodes() []string {
	tag := l.prefix + "{nodes}:"
	return []string{tag + "lease", tag + "info"}
}

// index returns the key of the set of sessions that were claimed under a lease.
func (l layout) index(lease string) string { return l.prefix + "{node:" + lease + "}:sessions" }

// gone returns the keys of the sessions that are or will be over, in the order
// of the scripts.
func (l layout) gone() []string {
	tag := l.prefix + "{gone}:"
	return []string{tag + "due", tag + "told", tag + "epoch"}
}

// events returns the stream that backends read, and what belongs to it. The tag
// of the others is its name: a Cluster keeps them together.
func (l layout) events() []string {
	stream := l.prefix + "events"
	tag := l.prefix + "{" + stream + "}:"
	return []string{stream, tag + "open", tag + "ended"}
}

// eventsEpoch returns the key of what names the life of these.
func (l layout) eventsEpoch() string { return l.prefix + "{" + l.prefix + "events}:epoch" }
