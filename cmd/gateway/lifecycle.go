package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// part is something that runs as long as the node does. It returns nil when its
// context is done, and before that only if it failed.
type part struct {
	name string
	run  func(context.Context) error
}

// runParts runs edge until ctx is done, on top of what it needs: those parts
// stop only when edge has drained. If any of them ends by itself all are
// stopped, edge first, and the cause is returned.
func runParts(ctx context.Context, edge part, needs ...part) error {
	edgeCtx, stopEdge := context.WithCancelCause(ctx)
	defer stopEdge(nil)
	needsCtx, stopNeeds := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNeeds()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failures []error
	for _, p := range needs {
		wg.Go(func() {
			err := p.ended(needsCtx)
			if err == nil {
				return
			}
			mu.Lock()
			failures = append(failures, err)
			mu.Unlock()
			stopEdge(err)
		})
	}
	err := edge.ended(edgeCtx)
	stopNeeds()
	wg.Wait()
	return errors.Join(append(failures, err)...)
}

// ended runs p and says what was wrong with its end: nothing, if it came when
// it was asked for and without an error.
func (p part) ended(ctx context.Context) error {
	err := p.run(ctx)
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", p.name, err)
	case ctx.Err() == nil:
		return fmt.Errorf("%s: ended by itself", p.name)
	}
	return nil
}

// untilSignal returns a context that SIGTERM or SIGINT ends. A second signal
// ends the process at once: by os.Exit, since a signal's own default does
// nothing to process 1 of a container.
func untilSignal() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2) // the two that count
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitFailed)
	}()
	return ctx, func() { signal.Stop(signals); cancel() }
}

// exitSlack is what is kept of the drain timeout for the end of the process itself, and
// exitShare the part of a short one.
const (
	exitSlack = 250 * time.Millisecond
	exitShare = 40
)

// exitInTime ends the process when it has been stopping for the drain timeout: the one
// deadline that all steps of an end share. Each has bounds of its own, but what waits for
// Redis cannot be called back, and together they may take longer. What was not written
// by then ends with the lease, as if the node had died. What it returns is for a node
// that ended before ctx did.
func exitInTime(ctx context.Context, timeout time.Duration, logger *slog.Logger) (ended func() bool) {
	return context.AfterFunc(ctx, func() {
		time.Sleep(timeout - min(exitSlack, timeout/exitShare))
		logger.Warn("not everything ended by drain_timeout, cut off", "drain_timeout", timeout)
		os.Exit(exitOK)
	})
}
