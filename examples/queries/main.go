// Command queries looks at a shop's messages without disturbing who consumes them:
// by key, by place, by time; what became of one; how far groups are behind. Then it
// moves groups: back, past a backlog, and to where another one is.
//
//	go run ./examples/queries
//
// It exits with 1 if it comes out otherwise than it should.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pocketmq/mq"
)

const (
	topic    = "OrderTopic"
	orders   = 12
	patience = 30 * time.Second // for everything
)

func main() {
	flag.Bool("quick", false, "changes nothing: it is quick")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := run(ctx, os.TempDir()); err != nil {
		fmt.Fprintln(os.Stderr, "queries:", err)
		cancel()
		os.Exit(1)
	}
}

func run(ctx context.Context, parent string) (err error) {
	dir, err := os.MkdirTemp(parent, "pocketmq-queries-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	noon, err := send(ctx, b)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context, *mq.Broker) error{consume, byKey, track} {
		if err := step(ctx, b); err != nil {
			return err
		}
	}
	return errors.Join(browse(b, noon), move(b))
}

// send stores the orders and says when half of them were stored.
func send(ctx context.Context, b *mq.Broker) (noon time.Time, err error) {
	if err := b.CreateTopic(topic, &mq.TopicConfig{Queues: 2}); err != nil {
		return noon, err
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		return noon, err
	}
	for i := range orders {
		if i == orders/2 {
			<-time.After(20 * time.Millisecond)
			noon = time.Now()
			<-time.After(20 * time.Millisecond) // StoredAt comes from a clock of 2 ms
		}
		m := &mq.Message{
			Topic: topic, Tag: []string{"paid", "cancelled"}[i%2], Body: fmt.Appendf(nil, "order-%d", i),
			Keys: []string{fmt.Sprint("order-", i), fmt.Sprint("customer-", i%3)}, Properties: map[string]string{"amount": fmt.Sprint(i * 10)},
		}
		if _, err := p.Send(ctx, m); err != nil {
			return noon, err
		}
	}
	return noon, nil
}

// consume has one group that fails on an order, and one that is slow.
func consume(ctx context.Context, b *mq.Broker) error {
	handler := func(_ context.Context, m *mq.Message) error {
		if string(m.Body) == "order-4" {
			return mq.Discard(errors.New("no such customer"))
		}
		return nil
	}
	billing, err := b.NewPushConsumer("billing", handler, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(billing.Subscribe(topic, mq.Tags("paid")), caughtUp(ctx, b, "billing"), billing.Close()); err != nil {
		return err
	}
	stock, err := b.NewPullConsumer("stock", nil)
	if err != nil {
		return err
	}
	if err := stock.Subscribe(topic, mq.All); err != nil {
		return err
	}
	ms, err := stock.Poll(ctx, 3)
	return errors.Join(err, stock.Commit(ctx, ms...), stock.Close())
}

func caughtUp(ctx context.Context, b *mq.Broker, group string) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if lag, _, err := b.Lag(group); err != nil || lag == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// byKey finds what a customer ordered, newest first.
func byKey(_ context.Context, b *mq.Broker) error {
	ms, err := b.MessagesByKey(topic, "customer-1", 64)
	if err != nil {
		return err
	}
	return expect("of customer 1", bodies(ms), "order-10 order-7 order-4 order-1")
}

// track asks what became of three orders.
func track(_ context.Context, b *mq.Broker) error {
	for key, want := range map[string]string{"order-2": "billing: Consumed", "order-3": "billing: Filtered", "order-4": "billing: Dead (mq: discarded: no such customer)"} {
		ms, err := b.MessagesByKey(topic, key, 1)
		if err != nil {
			return err
		}
		tracks, err := b.MessageTrack(ms[0].ID)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(tracks, func(t mq.Track) bool { return t.Group == "billing" })
		if i < 0 {
			return fmt.Errorf("no track of %s by billing", key)
		}
		got := fmt.Sprintf("%s: %v", tracks[i].Group, tracks[i].State)
		if tracks[i].LastError != "" {
			got += " (" + tracks[i].LastError + ")"
		}
		if err := expect(key, got, want); err != nil {
			return err
		}
	}
	return nil
}

// browse goes through the large orders of the afternoon, and reads one by its place.
func browse(b *mq.Broker, noon time.Time) error {
	var found []*mq.Message
	for m, err := range b.Browse(topic, noon, time.Time{}, mq.SQL("amount >= 80")) {
		if err != nil {
			return err
		}
		found = append(found, m)
	}
	if err := expect("large ones of the afternoon", bodies(found), "order-8 order-9 order-10 order-11"); err != nil {
		return err
	}
	m, err := b.MessageAt(mq.Queue{Topic: topic, ID: found[0].Queue}, found[0].Offset)
	if err != nil {
		return err
	}
	return expect("the first of them by its place", string(m.Body), "order-8")
}

// move sets the groups' offsets.
func move(b *mq.Broker) error {
	behind := func(group string) (string, error) {
		total, _, err := b.Backlog(group)
		return fmt.Sprintf("%d messages, %v", total.Messages, map[bool]string{true: "some bytes", false: "nothing"}[total.Bytes > 0]), err
	}
	check := func(what, group, want string, err error) error {
		if err != nil {
			return err
		}
		got, err := behind(group)
		return errors.Join(err, expect(what, got, want))
	}
	return errors.Join(
		check("stock is behind by", "stock", "9 messages, some bytes", nil),
		check("it skips its backlog", "stock", "0 messages, nothing", b.ResetOffset("stock", topic, mq.Latest)),
		check("billing does all again", "billing", "12 messages, some bytes", b.ResetOffset("billing", topic, mq.Earliest)),
		check("reports begins where stock is", "reports", "0 messages, nothing", b.CopyOffsets("stock", "reports", topic)),
		check("no such group", "stock", "0 messages, nothing", want(b.CopyOffsets("nobody", "stock", topic), mq.ErrGroupNotFound)),
		b.DeleteGroup("reports"),
	)
}

// want is nil if err is what it should be.
func want(err, sentinel error) error {
	if errors.Is(err, sentinel) {
		return nil
	}
	return fmt.Errorf("got %w, want %w", err, sentinel)
}

func bodies(ms []*mq.Message) string {
	var names []string
	for _, m := range ms {
		names = append(names, string(m.Body))
	}
	return strings.Join(names, " ")
}

// expect prints what was found, and fails if it is something else.
func expect(what, got, want string) error {
	fmt.Printf("%-30s %s\n", what+":", got)
	if got != want {
		return fmt.Errorf("%s: %q, want %q", what, got, want)
	}
	return nil
}
