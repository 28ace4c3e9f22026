package session

// Gone is a session that is over: it was ended, or its window has run out.
type Gone struct {
	ID, User string
	Node     string   // name of the node that held it last
	Reason   string   // why its last connection ended
	Channels []string // all that it was subscribed to
}
