package pocketmq

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pocketmq/mq"
)

// PublisherOptions says how a publisher works. Nil means the defaults.
type PublisherOptions struct {
	// Group is the producer's name, for people. May be empty.
	Group string

	// ShardingKey names the order that a message belongs to: subscribers with
	// Ordered get messages of one key one at a time, in the order in which they
	// were published. Those with an empty key are one order too. At most 1,024
	// bytes. Nil: messages have no order among each other.
	ShardingKey func(topic string, m *message.Message) (string, error)

	// Marshaler makes the messages that are stored. Default DefaultMarshaler.
	Marshaler Marshaler

	// TopicName turns a topic of Watermill into one of PocketMQ. Default
	// EscapeName. Subscribers need the same.
	TopicName func(topic string) string
}

// KeyFromMetadata is a PublisherOptions.ShardingKey: the value of a metadata
// field, empty if there is none.
func KeyFromMetadata(field string) func(string, *message.Message) (string, error) {
	return func(_ string, m *message.Message) (string, error) { return m.Metadata[field], nil }
}

// Publisher stores messages in a broker. It is safe for concurrent use.
type Publisher struct {
	producer *mq.Producer
	opts     PublisherOptions
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher returns a publisher on b, which stays the caller's to close.
// Errors: mq.ErrClosed.
func NewPublisher(b *mq.Broker, options *PublisherOptions) (*Publisher, error) {
	var o PublisherOptions
	if options != nil {
		o = *options
	}
	if o.Marshaler == nil {
		o.Marshaler = DefaultMarshaler{}
	}
	if o.TopicName == nil {
		o.TopicName = EscapeName
	}
	producer := &mq.ProducerOptions{Group: o.Group}
	if o.ShardingKey != nil {
		producer.Selector = mq.ByShardingKey // those without a key have an order, too
	}
	p, err := b.NewProducer(producer)
	if err != nil {
		return nil, err
	}
	return &Publisher{producer: p, opts: o}, nil
}

// Publish stores messages, all or none of them: when it returns nil they are as
// durable as the topic asks for (by default on the disk), after an error nobody
// gets any of them, unless the error is mq.ErrPoisoned. All of them together
// take at most 16 MiB.
//
// It heeds the metadata of Watermill's components/delay: such a message is not
// delivered before its time. The contexts of messages are not looked at: Publish
// waits for the disk and for nobody else, and a handler whose time is over has
// to get rid of its message all the same (middleware.PoisonQueue behind
// middleware.Timeout).
//
// Errors: those of mq.Producer.SendBatch, of the Marshaler and of ShardingKey.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	out := make([]*mq.Message, len(messages))
	for i, m := range messages {
		var err error
		if out[i], err = p.stored(topic, m); err != nil {
			return fmt.Errorf("publish to %s: message %q: %w", topic, m.UUID, err)
		}
	}
	var err error
	if len(out) == 1 {
		_, err = p.producer.Send(context.Background(), out[0])
	} else {
		_, err = p.producer.SendBatch(context.Background(), out)
	}
	if err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

// stored is the message as it is sent.
func (p *Publisher) stored(topic string, m *message.Message) (*mq.Message, error) {
	out, err := p.opts.Marshaler.Marshal(topic, m)
	if err != nil {
		return nil, err
	}
	out.Topic = p.opts.TopicName(topic)
	if p.opts.ShardingKey != nil {
		if out.ShardingKey, err = p.opts.ShardingKey(topic, m); err != nil {
			return nil, err
		}
	}
	if out.DeliverAt.IsZero() && out.Delay == 0 && out.DelayLevel == 0 {
		if out.DeliverAt, err = dueAt(m.Metadata, time.Now()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Close makes Publish return mq.ErrClosed. It may be called more than once. The
// broker stays open.
func (p *Publisher) Close() error { return p.producer.Close() }
