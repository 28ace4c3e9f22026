package session

// event is the kind of an entry of the stream of events. Each session has one
// of each, whatever moves and repetitions there are between.
type event string

const (
	eventConnected    event = "connected"
	eventDisconnected event = "disconnected"
)

// eventsKept is about how many events are kept for backends that are away: some
// 20 MB of Redis.
const eventsKept = 100_000

// eventCall writes an event, unless it was written before.
func (r *Registry) eventCall(e event, id, user, node, reason string) *call {
	return newCall(eventScript, r.keys.events(), string(e), id, user, node, reason, eventsKept)
}
