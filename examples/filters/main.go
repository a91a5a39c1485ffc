// Command filters lets four groups read one topic of orders, each its own part of
// it: by tag, by conditions on the properties, and all of it.
//
//	go run ./examples/filters
//
// It shows what an expression that cannot be read says, changes a filter while its
// members are at work, and asks after a restart what a group wants. It exits with
// 1 if it comes out otherwise than it should.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pocketmq/mq"
)

const (
	topic    = "OrderTopic"
	patience = 30 * time.Second // for everything
)

// orders have a region, an amount, and some of them a coupon.
var orders = []mq.Message{
	{Tag: "paid", Body: []byte("o1"), Properties: map[string]string{"region": "eu", "amount": "20"}},
	{Tag: "paid", Body: []byte("o2"), Properties: map[string]string{"region": "us", "amount": "120.50"}},
	{Tag: "cancelled", Body: []byte("o3"), Properties: map[string]string{"region": "eu", "amount": "300"}},
	{Tag: "paid", Body: []byte("o4"), Properties: map[string]string{"region": "eu", "amount": "99.99", "coupon": "WELCOME10"}},
	{Tag: "paid", Body: []byte("o5"), Properties: map[string]string{"amount": "1e3"}}, // nobody knows from where
	{Tag: "paid", Body: []byte("o6"), Properties: map[string]string{"region": "apac", "amount": "unknown"}},
}

// readers are groups and what they want.
var readers = []struct {
	group  string
	filter mq.Filter
	want   []string
}{
	{"audit", mq.All, []string{"o1", "o2", "o3", "o4", "o5", "o6"}},
	{"shipping", mq.Tags("paid"), []string{"o1", "o2", "o4", "o5", "o6"}},
	// 120.50 is more than 100, and "unknown" is not: what is no number is not compared.
	{"fraud", mq.SQL("amount > 100"), []string{"o2", "o3", "o5"}},
	// o5 has no region: whether it is in the EU is unknown, and unknown is not true.
	{"marketing", mq.SQL("TAGS = 'paid' AND (region = 'eu' OR coupon STARTSWITH 'WELCOME')"), []string{"o1", "o4"}},
}

func main() {
	flag.Bool("quick", false, "changes nothing: it is quick")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := run(ctx, os.TempDir()); err != nil {
		fmt.Fprintln(os.Stderr, "filters:", err)
		cancel()
		os.Exit(1)
	}
}

func run(ctx context.Context, parent string) (err error) {
	dir, err := os.MkdirTemp(parent, "pocketmq-filters-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(consume(ctx, b), refuse(b), change(ctx, b), b.Close()); err != nil {
		return err
	}
	return remember(dir)
}

// inbox keeps the bodies that a handler got.
type inbox struct {
	mu     sync.Mutex
	bodies []string
}

func (in *inbox) handle(_ context.Context, m *mq.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.bodies = append(in.bodies, string(m.Body))
	return nil
}

func (in *inbox) sorted() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Sorted(slices.Values(in.bodies))
}

// consume sends the orders and lets all groups read them.
func consume(ctx context.Context, b *mq.Broker) (err error) {
	p, err := b.NewProducer(nil)
	if err != nil {
		return err
	}
	for _, m := range orders {
		m.Topic = topic
		if _, err := p.Send(ctx, &m); err != nil {
			return err
		}
	}
	for _, r := range readers {
		var in inbox
		c, err := b.NewPushConsumer(r.group, in.handle, nil)
		if err != nil {
			return err
		}
		err = errors.Join(c.Subscribe(topic, r.filter), passed(ctx, b, r.group), c.Close())
		if err != nil {
			return err
		}
		if got := in.sorted(); !slices.Equal(got, r.want) {
			return fmt.Errorf("%s got %v, want %v", r.group, got, r.want)
		}
		fmt.Printf("%-10s %-75v %v\n", r.group, r.filter, r.want)
	}
	return nil
}

// passed waits until the group is through with everything, what it did not want
// included: that is acknowledged for it.
func passed(ctx context.Context, b *mq.Broker, group string) error {
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

// refuse subscribes with a condition that cannot be read.
func refuse(b *mq.Broker) (err error) {
	c, err := b.NewPullConsumer("fraud", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	err = c.Subscribe(topic, mq.SQL("amount != 100"))
	var where *mq.ExpressionError
	if !errors.Is(err, mq.ErrInvalidFilter) || !errors.As(err, &where) || where.Offset != 7 {
		return fmt.Errorf("a bad expression was answered with %w", err)
	}
	fmt.Println("refused:", err)
	return nil
}

// change gives all members of a group another filter at once.
func change(ctx context.Context, b *mq.Broker) (err error) {
	c, err := b.NewPullConsumer("fraud", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	stricter := mq.SQL("amount > 500")
	if err := errors.Join(c.Subscribe(topic, mq.SQL("amount > 100")), b.ResetOffset("fraud", topic, mq.Earliest), b.Resubscribe("fraud", topic, stricter)); err != nil {
		return err
	}
	ms, err := c.Poll(ctx, 32)
	if err != nil {
		return err
	}
	if len(ms) != 1 || string(ms[0].Body) != "o5" {
		return fmt.Errorf("with %v the group got %d messages, want o5", stricter, len(ms))
	}
	fmt.Printf("%-10s %-75v [%s]\n", "fraud", stricter, ms[0].Body)
	return nil
}

// remember asks after a restart what a group wants.
func remember(dir string) (err error) {
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	f, err := b.Filter("fraud", topic)
	if err != nil {
		return err
	}
	if f.String() != "amount > 500" {
		return fmt.Errorf("after a restart the filter is %v", f)
	}
	fmt.Println("after a restart fraud wants:", f)
	return nil
}
