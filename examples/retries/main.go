// Command retries shows what becomes of messages whose handler fails.
//
//	go run ./examples/retries
//
// A group bills orders. Its policy, kept in the store, is three attempts with short
// waits. Most orders are billed at once; one when the bank is back, one at the
// time it asks for, one is refused and never tried again, one takes too long each
// time, and one fails until it is given up. The last three are dead letters: they
// are listed, looked at, and sent again or purged.
//
// It exits with 1 if it comes out otherwise.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pocketmq/mq"
)

const (
	topic    = "OrderTopic"
	group    = "billing"
	patience = time.Minute // for everything
)

// policy is short, so that nobody waits for the example. The default is RocketMQ's:
// 17 attempts in about five hours.
var policy = mq.RetryPolicy{
	MaxAttempts: 3,
	Delays:      []time.Duration{20 * time.Millisecond, 50 * time.Millisecond},
}

// want is how often each order is handled, and what comes of it.
var want = map[string]outcome{
	"plain":     {1, "billed"},
	"bank-away": {2, "billed"},
	"tomorrow":  {2, "billed"},
	"forged":    {1, "dead: mq: discarded: signature does not match"},
	"slow":      {3, "dead: mq: handler past its time-out of 30ms: context canceled"},
	"broken":    {3, "dead: no such account"},
}

type outcome struct {
	attempts int
	end      string
}

func main() {
	flag.Bool("quick", false, "changes nothing: it is quick")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "retries:", err)
		cancel()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "pocketmq-retries-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	// The policy is the group's: whoever joins it, today or after a restart.
	if err := b.UpdateGroup(group, mq.GroupConfig{Retry: policy}); err != nil {
		return err
	}
	if err := send(ctx, b); err != nil {
		return err
	}
	s := &shop{orders: map[string]int{}}
	c, err := b.NewPushConsumer(group, s.bill, &mq.PushOptions{Timeout: 30 * time.Millisecond})
	if err != nil {
		return err
	}
	if err := c.Subscribe(topic, mq.All); err != nil {
		return err
	}
	if err := settled(ctx, b, s, int64(len(want))); err != nil {
		return err
	}
	if err := look(b, s, out); err != nil {
		return err
	}
	return repair(ctx, b, s, out)
}

func send(ctx context.Context, b *mq.Broker) error {
	p, err := b.NewProducer(nil)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if _, err := p.Send(ctx, &mq.Message{Topic: topic, Keys: []string{name}, Body: []byte(name)}); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until n orders have come to their end, billed or dead.
func settled(ctx context.Context, b *mq.Broker, s *shop, n int64) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		lag, _, err := b.Lag(group)
		if err != nil {
			return err
		}
		if lag == 0 && s.billed.Load()+b.Stats().Dead == n {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not all orders came to an end: %w", ctx.Err())
		}
	}
}

// look compares what was billed and what is dead with what has to be.
func look(b *mq.Broker, s *shop, out io.Writer) error {
	got := map[string]outcome{}
	for name, n := range s.counts() {
		got[name] = outcome{n, "billed"}
	}
	for m, err := range b.DeadLetters(group) {
		if err != nil {
			return err
		}
		// It is the message that failed, with where it came from and why it ended.
		if m.Topic != topic || m.Origin == nil {
			return fmt.Errorf("dead letter %v of topic %q has origin %v", m.ID, m.Topic, m.Origin)
		}
		got[string(m.Body)] = outcome{m.Origin.Attempts, "dead: " + m.Origin.LastError}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		fmt.Fprintf(out, "%-9s  %d attempts, %s\n", name, got[name].attempts, got[name].end)
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("came out as %v, want %v", got, want)
	}
	return nil
}

// repair sends one dead letter again after its cause is gone, and purges the rest.
func repair(ctx context.Context, b *mq.Broker, s *shop, out io.Writer) error {
	s.repaired.Store(true)
	for m, err := range b.DeadLetters(group) {
		if err != nil {
			return err
		}
		if strings.Contains(m.Origin.LastError, "no such account") {
			if _, err := b.ResendDeadLetters(ctx, group, m.ID); err != nil {
				return err
			}
		}
	}
	if err := settled(ctx, b, s, int64(len(want))+1); err != nil {
		return err
	}
	if n := s.counts()["broken"]; n != 4 {
		return fmt.Errorf("the order was handled %d times, want once more", n)
	}
	purged, err := b.PurgeDeadLetters(group)
	if err != nil {
		return err
	}
	if purged != 2 {
		return fmt.Errorf("%d dead letters were left, want 2", purged)
	}
	fmt.Fprintln(out, "the broken order was sent again and billed, two dead letters were purged")
	return nil
}
