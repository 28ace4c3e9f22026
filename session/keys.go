package session

// layout names the keys in Redis. Those that one script touches share a hash
// tag, so that a Cluster keeps them together.
type layout struct{ prefix string }

// user returns the keys of a user's sessions, in the order of the scripts.
func (l layout) user(user string) []string {
	tag := l.prefix + "{user:" + user + "}:"
	return []string{tag + "sessions", tag + "left", tag + "channels"}
}

// nodes returns the keys of the leases, in the order of the scripts.
func (l layout) nodes() []string {
	tag := l.prefix + "{nodes}:"
	return []string{tag + "lease", tag + "info"}
}

// index returns the key of the set of sessions that were claimed under a lease.
func (l layout) index(lease string) string { return l.prefix + "{node:" + lease + "}:sessions" }
