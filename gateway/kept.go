package gateway

import (
	"slices"

	"wssgateway/broker"
)

// keptLimit bounds what is kept for a connection while it catches up: beyond it the
// stream is read again.
const keptLimit = 128 << 10

// keep keeps an item for a held member. Beyond what a connection may have kept, in
// all its channels together, everything of the channel is given up: its stream has
// it.
func (s *shard) keep(m *member, it item) {
	if it.kind == itemReset {
		// The client is to go on from here, so what was before is not missed;
		// what comes may have lower ids.
		s.forgetKept(m)
		m.overflow = false
		m.from, m.after = it.id, it.id
	}
	full := s.kept[m.conn]+it.cost() > min(keptLimit, int(m.conn.gw.cfg.Limits.Outbox)/2)
	if m.overflow || full && it.kind != itemReset {
		m.missed = m.missed || it.id.IsZero() || slices.ContainsFunc(m.kept, item.isEvent)
		reset := slices.Clone(m.resetKept())
		s.forgetKept(m)
		m.kept, m.overflow = reset, true
		if !it.id.IsZero() {
			m.after = it.id
		}
		return
	}
	m.kept = append(m.kept, it)
	m.bytes += it.cost()
	s.kept[m.conn] += it.cost()
	m.conn.socket.Charge(it.cost())
}

// forgetKept gives up what is kept for a member.
func (s *shard) forgetKept(m *member) {
	m.kept = nil
	s.released(m)
}

// released takes in that what was kept for a member does not count any more.
func (s *shard) released(m *member) {
	if m.bytes == 0 {
		return
	}
	if s.kept[m.conn] -= m.bytes; s.kept[m.conn] <= 0 {
		delete(s.kept, m.conn)
	}
	m.conn.socket.Charge(-m.bytes)
	m.bytes = 0
}

// resetKept returns the reset that is kept, if there is one.
func (m *member) resetKept() []item {
	if len(m.kept) > 0 && m.kept[0].kind == itemReset {
		return m.kept[:1]
	}
	return nil
}

// release delivers what was kept, but for what the client has seen already. If
// it had been given up, the member stays held, and what it lacks is replayed.
func (s *shard) release(m *member, seen broker.ID) {
	if !m.attached() {
		return // a replay has ended that was not waited for
	}
	if m.resetKept() != nil {
		seen = m.from // it has seen what there was before the reset
	}
	if m.overflow {
		s.sendKept(m)
		from := later(m.from, seen)
		m.from, m.overflow = m.after, false
		m.conn.startReplay(m, from, m.after, true)
		return
	}
	m.after = later(m.after, seen)
	m.kept = m.unseen(m.kept)
	last := later(m.after, lastID(m.kept))
	s.sendKept(m)
	if m.missed && m.channel.feed != nil {
		m.conn.socket.Send(resetFrame(m.channel, last))
	}
	m.catchUp = nil
}

// isEvent reports whether an item is one that no stream has.
func (it item) isEvent() bool { return it.kind == itemFrame && it.id.IsZero() }

// lastID returns the last id of items, or none.
func lastID(items []item) broker.ID {
	for _, it := range slices.Backward(items) {
		if !it.id.IsZero() {
			return it.id
		}
	}
	return broker.ID{}
}

func (s *shard) sendKept(m *member) {
	if len(m.kept) > 0 {
		frames := joinFrames(m.kept, m.conn.deflates)
		m.conn.socket.Send(frames)
		s.hub.metrics.delivered(m.kept, len(m.kept), len(frames))
	}
	s.forgetKept(m)
}
