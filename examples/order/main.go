// Command order consumes payments of many accounts, each account's in order,
// while one account is frozen with thousands of payments behind the one that
// fails.
//
//	go run ./examples/order
//
// The frozen account holds up nobody: what comes behind its failing payment is
// parked, in the store, so that it fills neither the consumer's window nor its
// memory. The program then closes the store, opens it again, thaws the account
// and finds all of its payments in order, and none of them twice.
//
// It exits with 1 if it comes out otherwise.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/pocketmq/mq"
)

const (
	topic    = "PaymentTopic"
	group    = "ledger"
	accounts = 40
	payments = 200  // of each account
	backlog  = 5000 // of the frozen one
	frozen   = "account-0"
	window   = 1000 // PrefetchMessages, which is the default
	patience = time.Minute
)

func main() {
	dir := flag.String("dir", "", "`directory` of the store; it is kept (default: a temporary one)")
	flag.Bool("quick", false, "changes nothing: it is quick")
	flag.Parse()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	err := run(ctx, *dir)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "order:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "pocketmq-order-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	l := &ledger{booked: map[string]int{}, isFrozen: true}
	if err := l.firstDay(ctx, dir); err != nil {
		return err
	}
	l.thaw()
	if err := l.secondDay(ctx, dir); err != nil {
		return err
	}
	fmt.Printf("all %d payments of %s are booked, in order\n", backlog, frozen)
	return nil
}

// firstDay sends all payments and books those that can be.
func (l *ledger) firstDay(ctx context.Context, dir string) error {
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	defer b.Close()
	// One queue: the frozen account shares it with all others.
	if err := b.CreateTopic(topic, &mq.TopicConfig{Queues: 1, Durability: mq.Written}); err != nil {
		return err
	}
	if err := send(ctx, b); err != nil {
		return err
	}
	if err := l.consume(b); err != nil {
		return err
	}
	if err := l.await(ctx, (accounts-1)*payments); err != nil {
		return err
	}
	for { // until it has gone through the frozen account's, too
		info, err := b.Group(group)
		if err != nil {
			return err
		}
		if info.Parked > backlog-window/2 {
			fmt.Printf("%d payments of %d accounts are booked; %s is frozen, and more than %d of its payments are parked\n",
				(accounts-1)*payments, accounts-1, frozen, backlog-window/2)
			return b.Close()
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// secondDay goes on with what the first has left.
func (l *ledger) secondDay(ctx context.Context, dir string) error {
	b, err := mq.Open(dir, nil)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := l.consume(b); err != nil {
		return err
	}
	if err := l.await(ctx, (accounts-1)*payments+backlog); err != nil {
		return err
	}
	return b.Close()
}

// send spreads the payments of the others among those of the frozen account.
func send(ctx context.Context, b *mq.Broker) error {
	p, err := b.NewProducer(nil)
	if err != nil {
		return err
	}
	pay := func(account string, n int) error {
		_, err := p.Send(ctx, &mq.Message{Topic: topic, ShardingKey: account, Body: []byte(strconv.Itoa(n))})
		return err
	}
	for i := range backlog {
		if err := pay(frozen, i); err != nil {
			return err
		}
		for a := 1; a < accounts && i < payments; a++ {
			if err := pay("account-"+strconv.Itoa(a), i); err != nil {
				return err
			}
		}
	}
	return nil
}

// ledger books payments, and wants each account's in order.
type ledger struct {
	mu       sync.Mutex // protects everything below
	isFrozen bool
	booked   map[string]int // payments, by account
	total    int
	wrong    error
}

var errFrozen = errors.New("the account is frozen")

func (l *ledger) book(_ context.Context, m *mq.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isFrozen && m.ShardingKey == frozen {
		return errFrozen // it comes again, and nothing of the account before it
	}
	n, err := strconv.Atoi(string(m.Body))
	if err != nil || n != l.booked[m.ShardingKey] {
		l.wrong = fmt.Errorf("%s: payment %s came, and %d were booked", m.ShardingKey, m.Body, l.booked[m.ShardingKey])
	}
	l.booked[m.ShardingKey]++
	l.total++
	return nil
}

func (l *ledger) thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isFrozen = false
}

func (l *ledger) consume(b *mq.Broker) error {
	c, err := b.NewPushConsumer(group, l.book, &mq.PushOptions{
		Ordered:          true,
		PrefetchMessages: window,
		Backoff:          mq.Fixed(20 * time.Millisecond), // a second, unless somebody is waiting
	})
	if err != nil {
		return err
	}
	return c.Subscribe(topic, mq.All) // b.Close closes it
}

// await waits until so many payments are booked.
func (l *ledger) await(ctx context.Context, n int) error {
	for {
		l.mu.Lock()
		total, wrong := l.total, l.wrong
		l.mu.Unlock()
		if wrong != nil || total == n {
			return wrong
		}
		if total > n {
			return fmt.Errorf("%d payments are booked, and %d were to be", total, n)
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%d of %d payments are booked: %w", total, n, err)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(5 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
