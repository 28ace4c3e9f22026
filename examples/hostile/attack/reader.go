package attack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

func replays() []Attack {
	return []Attack{{
		Name:      "frozen replays",
		About:     "80 readers, 8/s come: they ask for 28 MB of history, each on 4 channels, with a window of 2 KiB, and never read",
		PerSecond: 0.5,
		Wants:     []string{"connected|HTTP 503|closed 1013|frozen"},
		run: func(ctx context.Context, f *front) {
			var channels []string
			for i := range BigChannels {
				channels = append(channels, fmt.Sprintf("big:%d@0", i))
			}
			coming := newPace(8)
			each(80, func(i int) {
				if coming.wait(ctx, 1) {
					f.freeze(ctx, way{user: fmt.Sprint("mallory-frozen-", i%2), channels: channels, window: smallWindow})
				}
			})
		},
	}}
}

// freeze connects and reads nothing until the attack is over.
func (f *front) freeze(ctx context.Context, w way) {
	p, err := f.open(ctx, w)
	if err != nil {
		return
	}
	defer p.close()
	f.acted(1, 0)
	f.saw("frozen")
	<-ctx.Done()
	p.react(lastWords)
}

func slowReaders() []Attack {
	return []Attack{{
		Name:      "slow readers",
		About:     "10 readers of 20 busy channels each, on which backends publish 300 messages/s of 1 kB, read 4 messages/s",
		PerSecond: 50,
		Wants:     []string{"message"},
		run: func(ctx context.Context, f *front) {
			each(11, func(i int) {
				if i == 10 {
					f.keepBusy(ctx)
					return
				}
				for coming := newPace(1); coming.wait(ctx, 1); {
					f.readSlowly(ctx, fmt.Sprint("mallory-late-", i))
				}
			})
		},
	}}
}

func (f *front) readSlowly(ctx context.Context, user string) {
	w := way{user: user, window: 2 * smallWindow}
	for i := range BusyChannels {
		w.channels = append(w.channels, busy(i))
	}
	p, err := f.open(ctx, w)
	if err != nil {
		return
	}
	defer p.close()
	p.deadline(holding)
	for reading := newPace(4); reading.wait(ctx, 1); {
		said, err := p.read()
		if err != nil {
			f.saw("cut")
			return
		}
		if f.saw(said); strings.HasPrefix(said, "closed") {
			return
		}
	}
}

func busy(i int) string { return fmt.Sprint("busy:", i%BusyChannels) }

// keepBusy publishes as a backend does, in arrays of 50.
func (f *front) keepBusy(ctx context.Context) {
	pad := strings.Repeat("x", 1000)
	n := 0
	for publishing := newPace(6); publishing.wait(ctx, 1); {
		var messages []map[string]string
		for range 50 {
			n++
			messages = append(messages, map[string]string{"channel": busy(n), "data": pad})
		}
		if err := f.publish(ctx, messages); err != nil && ctx.Err() == nil {
			f.saw("not published")
			continue
		}
		f.acted(len(messages), len(messages)*len(pad))
	}
}

func (f *front) publish(ctx context.Context, messages any) error {
	body, err := json.Marshal(messages)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+f.target.Admin+"/v1/publish", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+f.target.APIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("publish: %s", resp.Status)
	}
	return nil
}
