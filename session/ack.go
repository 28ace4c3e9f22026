package session

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	// ackTTL is how long a user may stay away on all devices before it is
	// forgotten how far they have read: longer than an inbox is likely to be
	// kept.
	ackTTL = 30 * 24 * time.Hour
	// ackDevices bounds what one user can leave in Redis: of more devices, the
	// one that has acknowledged nothing for longest is forgotten.
	ackDevices = 100
)

// Ack keeps how far a device has read its user's inbox: Claim answers it to the
// next connection of the device. Position is the id of a message; one that is
// not after the one kept changes nothing.
func (r *Registry) Ack(ctx context.Context, user, device, position string) error {
	c := newCall(ackScript, []string{r.keys.acks(user)}, device, position, ackTTL.Milliseconds(), ackDevices)
	if err := r.run(ctx, c); err != nil {
		return fmt.Errorf("session: ack: %w", err)
	}
	return nil
}

// parseAck returns the position of what ack.lua has kept.
func parseAck(s string) string {
	position, _, _ := strings.Cut(s, " ")
	return position
}
