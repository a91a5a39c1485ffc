package mqpubsub

import (
	"context"
	"errors"

	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/batcher"
	"gocloud.dev/pubsub/driver"

	"github.com/pocketmq/mq"
)

// sendHandlers is how many Sends may be under way at once. The broker lets those
// that wait share a sync, so they are not to wait for each other before it: more
// senders than this wait for a turn.
const sendHandlers = 128

// TopicOptions says how a Topic sends. Nil means the defaults.
type TopicOptions struct {
	// KeyName names the metadata whose value is the message's ShardingKey:
	// messages with equal values keep their order for an Ordered subscription
	// (as long as each is sent after the Send before it has returned). They stay in
	// the metadata. Empty: messages have no sharding key.
	KeyName string

	// BatcherOptions replaces the default, which is to send each message alone
	// and up to 128 at once: a message that is refused then fails alone.
	// With batches the portable type gives all senders of a batch the one error
	// that it got, and a batch of more than 16 MiB is refused.
	BatcherOptions *batcher.Options

	release func() error // of a broker that belongs to an opener
}

// OpenTopic returns a Topic that sends to a topic of the broker. A topic that is
// not there is created by the first Send or, under Options.NoAutoCreate, makes it
// fail with code NotFound. Shutdown leaves the broker open.
//
// Errors: mq.ErrClosed.
func OpenTopic(b *mq.Broker, name string, options *TopicOptions) (*pubsub.Topic, error) {
	var o TopicOptions
	if options != nil {
		o = *options
	}
	t, err := newTopic(b, name, &o)
	if err != nil {
		return nil, err
	}
	if o.BatcherOptions == nil {
		o.BatcherOptions = &batcher.Options{MaxHandlers: sendHandlers, MaxBatchSize: 1}
	}
	return pubsub.NewTopic(t, o.BatcherOptions), nil
}

// topic implements driver.Topic.
type topic struct {
	failures
	broker   *mq.Broker
	producer *mq.Producer
	name     string
	keyName  string
	release  func() error
}

func newTopic(b *mq.Broker, name string, o *TopicOptions) (*topic, error) {
	p, err := b.NewProducer(nil)
	if err != nil {
		return nil, err
	}
	return &topic{broker: b, producer: p, name: name, keyName: o.KeyName, release: o.release}, nil
}

// SendBatch implements driver.Topic: all of the messages are stored, or none.
func (t *topic) SendBatch(ctx context.Context, dms []*driver.Message) error {
	if len(dms) == 1 {
		m, err := t.message(dms[0])
		if err != nil {
			return err
		}
		result, err := t.producer.Send(ctx, m)
		if err != nil {
			return err
		}
		return sent(dms[0], result)
	}
	ms := make([]*mq.Message, len(dms))
	for i, dm := range dms {
		m, err := t.message(dm)
		if err != nil {
			return err
		}
		ms[i] = m
	}
	results, err := t.producer.SendBatch(ctx, ms)
	if err != nil {
		return err
	}
	for i, dm := range dms {
		if err := sent(dm, results[i]); err != nil {
			return err
		}
	}
	return nil
}

// message makes the broker's message of a portable one.
func (t *topic) message(dm *driver.Message) (*mq.Message, error) {
	m := &mq.Message{Properties: dm.Metadata, Body: dm.Body}
	if t.keyName != "" {
		m.ShardingKey = dm.Metadata[t.keyName]
	}
	if dm.BeforeSend != nil {
		if err := dm.BeforeSend(as(m)); err != nil {
			return nil, err
		}
	}
	m.Topic = t.name
	return m, nil
}

func sent(dm *driver.Message, result mq.SendResult) error {
	if dm.AfterSend == nil {
		return nil
	}
	return dm.AfterSend(func(i any) bool {
		p, ok := i.(*mq.SendResult)
		if ok {
			*p = result
		}
		return ok
	})
}

// as returns a function that stores v where it is given a pointer to its type.
func as[T any](v *T) func(any) bool {
	return func(i any) bool {
		p, ok := i.(**T)
		if ok {
			*p = v
		}
		return ok
	}
}

// As implements driver.Topic.
func (t *topic) As(i any) bool { return as(t.broker)(i) || as(t.producer)(i) }

// Close implements driver.Topic.
func (t *topic) Close() error {
	err := t.producer.Close()
	if t.release != nil {
		err = errors.Join(err, t.release())
	}
	return err
}
