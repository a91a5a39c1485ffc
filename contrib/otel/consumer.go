package mqotel

import (
	"context"
	"iter"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/pocketmq/mq"
)

// client is who consumes.
type client struct {
	t     *Telemetry // nil: nothing is emitted
	group string
	name  string // of the member
	model attribute.KeyValue
}

func (t *Telemetry) client(group, name string, model mq.Model) client {
	c := client{t: t.orNil(), group: group, name: name, model: semconv.MessagingRocketMQConsumptionModelClustering}
	if model == mq.Broadcasting {
		c.model = semconv.MessagingRocketMQConsumptionModelBroadcasting
	}
	return c
}

func (c *client) attributes(o *operation, topic string) []attribute.KeyValue {
	kvs := append(c.t.attributes(o, topic), semconv.MessagingConsumerGroupName(c.group), c.model)
	if c.name != "" {
		kvs = append(kvs, semconv.MessagingClientID(c.name))
	}
	return kvs
}

// start begins the span of an operation on messages, with links to them.
func (c *client) start(ctx context.Context, o *operation, ms []*mq.Message, began time.Time) trace.Span {
	topic := commonTopic(ms)
	kvs := append(c.attributes(o, topic), semconv.MessagingBatchMessageCount(len(ms)))
	if len(ms) == 1 && ms[0] != nil {
		kvs = appendPlace(kvs, ms[0].ID, ms[0].Queue)
	}
	_, span := c.t.tracer.Start(ctx, o.spanName(topic), trace.WithTimestamp(began), trace.WithSpanKind(o.kind),
		trace.WithLinks(c.t.links(ms)...), trace.WithAttributes(kvs...))
	return span
}

// received emits a Poll or Receive that brought messages. One that brought none
// was only waiting.
func (c *client) received(ctx context.Context, o *operation, began time.Time, ms []*mq.Message) {
	if len(ms) == 0 {
		return
	}
	if c.t.tracer != nil {
		end(c.start(ctx, o, ms, began), nil)
	}
	c.t.metrics.took(ctx, series{o, commonTopic(ms), c.group}, began, nil)
	for topic, n := range countTopics(ms) {
		c.t.metrics.consuming(ctx, series{o, topic, c.group}, n)
	}
}

// settled emits an operation that settled messages, or failed to.
func (c *client) settled(ctx context.Context, o *operation, began time.Time, ms []*mq.Message, err error) {
	if c.t.tracer != nil {
		end(c.start(ctx, o, ms, began), err)
	}
	c.t.metrics.took(ctx, series{o, commonTopic(ms), c.group}, began, err)
}

// PullConsumer is a mq.PullConsumer that leaves spans and metrics.
type PullConsumer struct {
	*mq.PullConsumer
	client client
}

// NewPullConsumer is mq.Broker.NewPullConsumer.
func (t *Telemetry) NewPullConsumer(b *mq.Broker, group string, options *mq.PullOptions) (*PullConsumer, error) {
	c, err := b.NewPullConsumer(group, options)
	if err != nil {
		return nil, err
	}
	var o mq.PullOptions
	if options != nil {
		o = *options
	}
	return &PullConsumer{c, t.client(group, c.Name(), o.Model)}, nil
}

// Poll is mq.PullConsumer.Poll.
func (c *PullConsumer) Poll(ctx context.Context, max int) ([]*mq.Message, error) {
	if c.client.t == nil {
		return c.PullConsumer.Poll(ctx, max)
	}
	began := time.Now()
	ms, err := c.PullConsumer.Poll(ctx, max)
	c.client.received(ctx, opPoll, began, ms)
	return ms, err
}

// Messages is mq.PullConsumer.Messages: each of its polls has a span.
func (c *PullConsumer) Messages(ctx context.Context) iter.Seq2[*mq.Message, error] {
	if c.client.t == nil {
		return c.PullConsumer.Messages(ctx)
	}
	return func(yield func(*mq.Message, error) bool) {
		for {
			ms, err := c.Poll(ctx, pollBatch)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, m := range ms {
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}

// pollBatch is how many messages mq.PullConsumer.Messages polls at once.
const pollBatch = 32

// Commit is mq.PullConsumer.Commit. Without messages its span has no links.
func (c *PullConsumer) Commit(ctx context.Context, ms ...*mq.Message) error {
	if c.client.t == nil {
		return c.PullConsumer.Commit(ctx, ms...)
	}
	began := time.Now()
	err := c.PullConsumer.Commit(ctx, ms...)
	c.client.settled(ctx, opCommit, began, ms, err)
	return err
}

// SimpleConsumer is a mq.SimpleConsumer that leaves spans and metrics.
type SimpleConsumer struct {
	*mq.SimpleConsumer
	client client
}

// NewSimpleConsumer is mq.Broker.NewSimpleConsumer.
func (t *Telemetry) NewSimpleConsumer(b *mq.Broker, group string, options *mq.SimpleOptions) (*SimpleConsumer, error) {
	c, err := b.NewSimpleConsumer(group, options)
	if err != nil {
		return nil, err
	}
	return &SimpleConsumer{c, t.client(group, c.Name(), mq.Clustering)}, nil
}

// Receive is mq.SimpleConsumer.Receive.
func (c *SimpleConsumer) Receive(ctx context.Context, max int, invisible time.Duration) ([]*mq.Message, error) {
	if c.client.t == nil {
		return c.SimpleConsumer.Receive(ctx, max, invisible)
	}
	began := time.Now()
	ms, err := c.SimpleConsumer.Receive(ctx, max, invisible)
	c.client.received(ctx, opReceive, began, ms)
	return ms, err
}

// Ack is mq.SimpleConsumer.Ack.
func (c *SimpleConsumer) Ack(ctx context.Context, ms ...*mq.Message) error {
	if c.client.t == nil {
		return c.SimpleConsumer.Ack(ctx, ms...)
	}
	began := time.Now()
	err := c.SimpleConsumer.Ack(ctx, ms...)
	c.client.settled(ctx, opAck, began, ms, err)
	return err
}

// Nack is mq.SimpleConsumer.Nack.
func (c *SimpleConsumer) Nack(ctx context.Context, ms ...*mq.Message) error {
	if c.client.t == nil {
		return c.SimpleConsumer.Nack(ctx, ms...)
	}
	began := time.Now()
	err := c.SimpleConsumer.Nack(ctx, ms...)
	c.client.settled(ctx, opNack, began, ms, err)
	return err
}

// ChangeInvisible is mq.SimpleConsumer.ChangeInvisible.
func (c *SimpleConsumer) ChangeInvisible(ctx context.Context, m *mq.Message, d time.Duration) error {
	if c.client.t == nil {
		return c.SimpleConsumer.ChangeInvisible(ctx, m, d)
	}
	began := time.Now()
	err := c.SimpleConsumer.ChangeInvisible(ctx, m, d)
	c.client.settled(ctx, opChangeVisible, began, []*mq.Message{m}, err)
	return err
}
