package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pocketmq/mq"
)

const (
	counterGroup = "LineCounters" // clustering: two members share the work
	auditorGroup = "LineAuditors" // broadcasting: each member gets everything
	readerGroup  = "TagReader"    // pull: one tag, from the start
)

// auditors are the instance names of the broadcasting pair.
var auditors = []string{"north", "south"}

// patience is how long nothing may move before the run is given up.
const patience = 30 * time.Second

// consumers are the push consumers of the job and what they have counted.
type consumers struct {
	shared counter   // of both clustering members
	own    []counter // by auditor
}

func startConsumers(b *mq.Broker) (*consumers, error) {
	c := &consumers{own: make([]counter, len(auditors))}
	for range 2 {
		if err := startConsumer(b, counterGroup, &c.shared, nil); err != nil {
			return nil, err
		}
	}
	for i, name := range auditors {
		o := &mq.PushOptions{Model: mq.Broadcasting, Instance: name}
		if err := startConsumer(b, auditorGroup, &c.own[i], o); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// startConsumer adds a member to a group. Closing the broker closes it.
func startConsumer(b *mq.Broker, group string, to *counter, o *mq.PushOptions) error {
	count := func(_ context.Context, m *mq.Message) error {
		to.add(m)
		return nil
	}
	c, err := b.NewPushConsumer(group, count, o)
	if err != nil {
		return err
	}
	return c.Subscribe(topic, mq.All)
}

// wait returns when both groups have acknowledged everything that was sent.
func (c *consumers) wait(ctx context.Context, b *mq.Broker, progress *bar) error {
	sent, moved, before := b.Stats().Messages, time.Now(), int64(-1)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var behind int64
		for _, group := range []string{counterGroup, auditorGroup} {
			lag, _, err := b.Lag(group)
			if err != nil {
				return err
			}
			behind += lag
		}
		if behind == 0 {
			return nil
		}
		progress.show("consumed", 3*sent-behind, 3*sent) // by the pair together, and by each auditor
		if behind != before {
			before, moved = behind, time.Now()
		}
		if time.Since(moved) > patience {
			return fmt.Errorf("consumers stand still, %d messages behind", behind)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *consumers) results() (clustering counts, broadcast []counts) {
	for i := range c.own {
		broadcast = append(broadcast, c.own[i].counts())
	}
	return c.shared.counts(), broadcast
}

// readAgain reads all messages of one tag with a pull consumer. A new group
// starts at the earliest message, and its filter is decided on the index: of
// the others only 20 bytes each are looked at.
func readAgain(ctx context.Context, b *mq.Broker, tag string) (r rate, err error) {
	c, err := b.NewPullConsumer(readerGroup, nil)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Subscribe(topic, mq.Tags(tag)); err != nil {
		return r, err
	}
	var read tally
	began := time.Now()
	for {
		ms, err := pollFor(ctx, c, 100*time.Millisecond)
		if err != nil {
			return r, err
		}
		for _, m := range ms {
			read = read.plus(tallyOf(m))
		}
		// Commit without messages acknowledges all that was polled and all that
		// the filter passed over.
		if err := c.Commit(ctx); err != nil {
			return r, err
		}
		if len(ms) > 0 {
			r = rateOf(read, time.Since(began)) // without the wait at the end
			continue
		}
		// Nothing for a while. Nobody sends any more, so that is the end, if
		// the group has been past everything.
		lag, _, err := b.Lag(readerGroup)
		if err != nil || lag == 0 {
			return r, err
		}
	}
}

// pollFor is Poll that returns no messages when none come for a while.
func pollFor(ctx context.Context, c *mq.PullConsumer, wait time.Duration) ([]*mq.Message, error) {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ms, err := c.Poll(limited, 64)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil
	}
	return ms, err
}
