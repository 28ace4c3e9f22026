package gateway

import (
	"testing"

	"wssgateway/broker"
)

// What is paid per message, whatever the number of receivers.
func TestMessageFrameIsOneAllocation(t *testing.T) {
	text := message{event: "chat", from: "alice", data: []byte(`{"text":"hi"}`)}
	binary := message{event: "chat", from: "alice", to: "bob", data: []byte("\x00\n\xff"), binary: true}
	id, err := broker.ParseID("1763672400123-0")
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]message{"text": text, "binary": binary} {
		payload := string(m.payload())
		got := testing.AllocsPerRun(100, func() {
			if frame, err := messageFrame("room:42", id, payload); err != nil || len(frame) == 0 {
				t.Fatal(err)
			}
		})
		if got > 1 {
			t.Errorf("%s: %v allocations", name, got)
		}
		if got := testing.AllocsPerRun(100, func() { m.payload() }); got > 1 {
			t.Errorf("%s: %v allocations of the payload", name, got)
		}
	}
}
