package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"wssgateway/examples/hostile/attack"
	"wssgateway/examples/lab"
)

// phase is a time in which the attackers were busy, with the gateway or with the
// sink.
type phase struct {
	name       string
	helper     *helper
	begin, end time.Time
	results    []attack.Result
	cpu        time.Duration // of the attackers
	gateway    time.Duration // of the gateway
	redisOut   int64         // bytes that left Redis
	ended      map[string]int
	heap       string // of the gateway at the end, in MiB
	sockets    int64
}

// warm is how long the good clients talk before anything is measured.
const warm = 2 * time.Second

// play has everybody do what they do, one phase after the other.
func (w *world) play(ctx context.Context) (err error) {
	ctx, end := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end(nil)
	wg.Go(func() { guard(ctx, w.node, end) })
	wg.Go(func() { w.noise.listen(ctx, w.processes) })
	wg.Go(func() {
		if err := w.backend.run(ctx); err != nil {
			end(err)
		}
	})
	if err := w.connect(ctx, &wg, end); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	talking, quiet := context.WithCancel(ctx)
	defer quiet()
	var talkers sync.WaitGroup
	for _, m := range w.members {
		talkers.Go(func() { m.talk(talking) })
	}
	talkers.Go(func() { w.caller.run(talking) })
	if err := errors.Join(lab.Pause(ctx, warm), w.attack(ctx)); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	quiet()
	talkers.Wait()
	w.settle(ctx)
	if w.streams, err = foreign(ctx, w.lab.Redis.Socket()); err != nil {
		return err
	}
	return errors.Join(w.calmDown(ctx), context.Cause(ctx))
}

// connect connects the good clients.
func (w *world) connect(ctx context.Context, wg *sync.WaitGroup, end func(error)) error {
	wg.Go(func() {
		if err := w.witness.client.Run(ctx); err != nil {
			end(err)
		}
	})
	for _, m := range w.members {
		wg.Go(func() {
			if err := m.speaker.run(ctx); err != nil {
				m.wasClosed(err)
			}
		})
	}
	for _, m := range w.members {
		if err := m.speaker.awaitConnected(ctx); err != nil {
			return err
		}
	}
	return w.witness.client.AwaitConnected(ctx)
}

// attack goes through the phases: attackers busy with the sink, and with the
// gateway.
func (w *world) attack(ctx context.Context) error {
	s := w.scenario
	nobody := attack.Target{Public: w.sinkAddr, Admin: w.sinkAddr, Secret: lab.Secret}
	node := attack.Target{Public: w.node.Public, Admin: w.node.Admin, Secret: lab.Secret, APIKey: lab.APIKey}
	if err := w.phase(ctx, "quiet", nobody, s.quiet); err != nil {
		return err
	}
	var err error
	if w.before, _, err = resident(w.node); err != nil {
		return err
	}
	return w.phase(ctx, "attack", node, s.attack)
}

func (w *world) phase(ctx context.Context, name string, t attack.Target, d time.Duration) (err error) {
	began, err := w.measure(ctx)
	if err != nil {
		return err
	}
	p := phase{name: name, begin: time.Now()}
	if p.helper, err = startHelper(ctx, asAttackers, orders{t, w.scenario.attacks}); err != nil {
		return err
	}
	defer func() { w.phases = append(w.phases, p) }()
	w.attackers.Store(int64(p.helper.cmd.Process.Pid))
	if err := lab.Pause(ctx, d); err != nil {
		return err
	}
	p.sockets = sockets()
	ended, err := w.measure(ctx)
	if err != nil {
		return err
	}
	if p.results, p.cpu, err = p.helper.results(); err != nil {
		return err
	}
	p.end = time.Now()
	p.gateway = ended.cpu - began.cpu
	p.redisOut = ended.redisOut - began.redisOut
	p.heap = ended.metrics.mebibytes("go_memstats_heap_inuse_bytes")
	p.ended = disconnects(began.metrics, ended.metrics)
	return nil
}

// processes returns the processes of the run.
func (w *world) processes() []int {
	return []int{os.Getpid(), w.node.PID(), w.lab.Redis.PID(), w.sink.cmd.Process.Pid, int(w.attackers.Load())}
}

// measured is how things stand at a moment.
type measured struct {
	metrics  metrics
	cpu      time.Duration
	redisOut int64
}

func (w *world) measure(ctx context.Context) (m measured, err error) {
	if m.metrics, err = scrape(ctx, w.node); err != nil {
		return m, fmt.Errorf("the gateway does not say how it is: %w", err)
	}
	m.cpu = time.Duration(m.metrics["process_cpu_seconds_total"] * float64(time.Second))
	info, err := w.lab.Redis.Info(ctx, "stats")
	if err != nil {
		return m, err
	}
	_, after, _ := strings.Cut(info, "total_net_output_bytes:")
	m.redisOut, err = strconv.ParseInt(strings.Fields(after + " x")[0], 10, 64)
	return m, err
}

// disconnects returns why connections have ended between two moments.
func disconnects(before, after metrics) map[string]int {
	ended := make(map[string]int)
	for name, n := range after {
		if cause, ok := strings.CutPrefix(name, `gateway_disconnects_total{cause="`); ok && n > before[name] {
			ended[strings.TrimSuffix(cause, `"}`)] = int(n - before[name])
		}
	}
	return ended
}

// settleTimeout is how long messages may take that were acknowledged.
const settleTimeout = 10 * time.Second

// settle waits until everybody has as many messages as were published, or will
// not get them any more.
func (w *world) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for _, m := range w.members {
		for _, channel := range m.channels {
			for m.has(channel) < len(w.ledger.acked[channel]) {
				if lab.Pause(ctx, 20*time.Millisecond) != nil {
					return // the judge says what is missing
				}
			}
		}
	}
}

// calmDown waits until the gateway has as little memory as before, or a little
// more. Nobody talks, but all are still connected.
func (w *world) calmDown(ctx context.Context) (err error) {
	began := time.Now()
	for {
		if w.after, _, err = resident(w.node); err != nil {
			return err
		}
		w.back = time.Since(began)
		if w.after <= w.before+giveBack || w.back > calm {
			return nil
		}
		if err := lab.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
