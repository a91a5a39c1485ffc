package pocketmq

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pocketmq/mq"
)

// lent is how long a message stays its subscription's: until it is acked, nacked
// or given back. No time-out takes it away, however long a handler needs.
const lent = 100 * 365 * 24 * time.Hour

// unreadableAgain is the least that a message waits which cannot be unmarshalled.
const unreadableAgain = time.Second

// subscription is one Subscribe.
//
// It stands on a SimpleConsumer: messages are acknowledged one by one in any
// order, those that come again stay in the group and with members that subscribe
// to their topic, and nothing moves when members come and go.
type subscription struct {
	s        *Subscriber
	group    string
	consumer *mq.SimpleConsumer
	out      chan *message.Message // not buffered: what is in it is out
	fields   watermill.LogFields
	working  sync.WaitGroup
}

// run is the subscription, from its first message to its closed channel. The
// Subscriber waits for it.
func (sub *subscription) run(ctx context.Context) {
	defer sub.s.running.Done()
	handling, cancel := context.WithCancel(ctx) // of messages that are out
	defer cancel()
	taking, stop := context.WithCancel(handling) // of those that are not
	defer stop()
	for range sub.s.opts.Concurrency {
		sub.working.Add(1)
		go sub.runWorker(handling, taking, stop)
	}
	wait := sub.s.opts.CloseTimeout
	select {
	case <-taking.Done(): // ctx ended, or a worker gave up
	case <-sub.s.quit:
	case <-sub.s.b.Done():
		wait = 0 // nothing can be acked any more
	}
	stop()
	if wait <= 0 {
		cancel()
	} else {
		defer time.AfterFunc(wait, cancel).Stop()
	}
	sub.working.Wait()
	if err := sub.leave(); err != nil {
		sub.s.opts.Logger.Error("subscription has not ended cleanly", err, sub.fields)
	}
	close(sub.out)
}

// leave ends the membership, and with it a group that has no other purpose.
func (sub *subscription) leave() error {
	err := sub.consumer.Close()
	if sub.s.opts.Group == "" {
		if gone := sub.s.b.DeleteGroup(sub.group); !errors.Is(gone, mq.ErrGroupNotFound) {
			err = errors.Join(err, gone)
		}
	}
	if errors.Is(err, mq.ErrClosed) {
		return nil // the broker was first; the next run sweeps
	}
	return err
}

// runWorker delivers one message after another. The wait is sub.working.
func (sub *subscription) runWorker(handling, taking context.Context, stop func()) {
	defer sub.working.Done()
	for {
		ms, err := sub.consumer.Receive(taking, 1, lent)
		if err == nil {
			err = sub.deliver(handling, taking, ms[0])
		}
		if err == nil {
			continue
		}
		if taking.Err() == nil && !errors.Is(err, mq.ErrClosed) {
			sub.s.opts.Logger.Error("subscription ends", err, sub.fields)
		}
		stop()
		return
	}
}

// deliver passes a message on and waits for what becomes of it. An error says
// that no more can be settled.
func (sub *subscription) deliver(handling, taking context.Context, m *mq.Message) error {
	msg, err := sub.s.opts.Marshaler.Unmarshal(m)
	if err != nil {
		sub.s.opts.Logger.Error("message cannot be unmarshalled", err, sub.fields.Add(watermill.LogFields{"id": m.ID}))
		return sub.again(m, max(unreadableAgain, sub.s.opts.Backoff(m.Attempt)))
	}
	ctx, cancel := context.WithCancel(context.WithValue(handling, receivedKey{}, m))
	defer cancel()
	msg.SetContext(ctx)
	select {
	case sub.out <- msg:
	case <-taking.Done():
		return sub.giveBack(m)
	}
	select {
	case <-msg.Acked():
		return sub.ack(m)
	case <-msg.Nacked():
		return sub.again(m, max(sub.s.opts.Backoff(m.Attempt), wished(msg, m)))
	case <-handling.Done():
	}
	select {
	case <-msg.Acked(): // at the last moment: it need not come again
		return sub.ack(m)
	default:
		return sub.giveBack(m)
	}
}

// wished is the delay that the handler put into the metadata of a message that
// it nacked.
func wished(msg *message.Message, m *mq.Message) time.Duration {
	text := msg.Metadata[delay.DelayedForKey]
	if msg.Metadata[delay.DelayedUntilKey] == m.Properties[delay.DelayedUntilKey] && text == m.Properties[delay.DelayedForKey] {
		return 0 // it was published with this one, which is over
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0
	}
	return d
}

// giveBack makes a message come again at once: its subscription has ended.
func (sub *subscription) giveBack(m *mq.Message) error { return sub.again(m, 0) }

// ack consumes a message. It does so even if the subscription has ended.
func (sub *subscription) ack(m *mq.Message) error {
	return sub.settled(sub.consumer.Ack(context.Background(), m), m)
}

// again makes a message come again after a while.
func (sub *subscription) again(m *mq.Message, after time.Duration) error {
	if after > 0 {
		return sub.settled(sub.consumer.ChangeInvisible(context.Background(), m, after), m)
	}
	return sub.settled(sub.consumer.Nack(context.Background(), m), m)
}

// settled is the error that ends the subscription. That offsets were reset or the
// topic deleted meanwhile does not: what was delivered before means nothing then.
func (sub *subscription) settled(err error, m *mq.Message) error {
	if errors.Is(err, mq.ErrReceiptExpired) {
		sub.s.opts.Logger.Info("message is from before a reset", sub.fields.Add(watermill.LogFields{"id": m.ID}))
		return nil
	}
	return err
}
