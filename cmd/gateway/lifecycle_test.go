package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
)

// until is a part that does what it should: run until it is stopped.
func until(name string, stopped *[]string) part {
	return part{name, func(ctx context.Context) error {
		<-ctx.Done()
		*stopped = append(*stopped, name)
		return nil
	}}
}

func TestPartsStopAfterWhatNeedsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var stopped []string
		done := make(chan error)
		go func() { done <- runParts(ctx, until("edge", &stopped), until("broker", &stopped)) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("runParts: %v", err)
		}
		if got := strings.Join(stopped, " "); got != "edge broker" {
			t.Errorf("stopped in the order %s", got)
		}
	})
}

func TestAPartThatEndsByItselfStopsAll(t *testing.T) {
	broken := errors.New("broken")
	fails := func(err error) part {
		return part{"bad", func(context.Context) error { return err }}
	}
	for _, test := range []struct {
		name        string
		bad         part
		asEdge      bool
		want        string
		wantStopped string
	}{
		{"a need with an error", fails(broken), false, "bad: broken", "good"},
		{"a need without one", fails(nil), false, "bad: ended by itself", "good"},
		{"the edge with an error", fails(broken), true, "bad: broken", "good"},
		{"the edge without one", fails(nil), true, "bad: ended by itself", "good"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stopped []string
			edge, need := until("good", &stopped), test.bad
			if test.asEdge {
				edge, need = need, edge
			}
			err := runParts(t.Context(), edge, need)
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if got := strings.Join(stopped, " "); got != test.wantStopped {
				t.Errorf("stopped: %s", got)
			}
		})
	}
}

func TestStoppedPartsMayReportTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	edge := part{"edge", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }}
	if err := runParts(ctx, edge); err != nil {
		t.Errorf("runParts: %v", err)
	}
}
