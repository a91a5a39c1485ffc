package mqotel

import (
	"context"
	"errors"
	"maps"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/pocketmq/mq"
)

// Producer is a mq.Producer whose sends leave spans and metrics.
type Producer struct {
	*mq.Producer
	t *Telemetry // nil: nothing is emitted
}

// NewProducer is mq.Broker.NewProducer. ProducerOptions.Group is
// messaging.client.id of its spans.
func (t *Telemetry) NewProducer(b *mq.Broker, options *mq.ProducerOptions) (*Producer, error) {
	p, err := b.NewProducer(options)
	if err != nil {
		return nil, err
	}
	return &Producer{p, t.orNil()}, nil
}

// Send is mq.Producer.Send.
func (p *Producer) Send(ctx context.Context, m *mq.Message) (mq.SendResult, error) {
	if p.t == nil || m == nil {
		return p.Producer.Send(ctx, m)
	}
	return p.send(ctx, m)
}

func (p *Producer) send(ctx context.Context, m *mq.Message) (mq.SendResult, error) {
	s := p.begin(ctx, m)
	result, err := p.Producer.Send(s.ctx, s.message)
	if s.refused(err) {
		result, err = p.Producer.Send(s.ctx, m)
	}
	s.end(result, err)
	return result, err
}

// SendAsync is mq.Producer.SendAsync. Its span ends, and its metrics are
// recorded, before the callback is called.
func (p *Producer) SendAsync(ctx context.Context, m *mq.Message, callback func(mq.SendResult, error)) error {
	if p.t == nil || m == nil {
		return p.Producer.SendAsync(ctx, m, callback)
	}
	s := p.begin(ctx, m)
	done := func(result mq.SendResult, err error) {
		s.end(result, err)
		if callback != nil {
			callback(result, err)
		}
	}
	err := p.Producer.SendAsync(s.ctx, s.message, done)
	if s.refused(err) {
		err = p.Producer.SendAsync(s.ctx, m, done)
	}
	if err != nil {
		s.end(mq.SendResult{}, err)
	}
	return err
}

// SendOneWay is mq.Producer.SendOneWay. Its span begins a trace, since there is no
// context to continue; see SendOneWayContext.
func (p *Producer) SendOneWay(m *mq.Message) error {
	return p.SendOneWayContext(context.Background(), m)
}

// SendOneWayContext is SendOneWay with a context for the span. It never waits,
// and does not look whether ctx has ended.
func (p *Producer) SendOneWayContext(ctx context.Context, m *mq.Message) error {
	if p.t == nil || m == nil {
		return p.Producer.SendOneWay(m)
	}
	s := p.begin(ctx, m)
	err := p.Producer.SendOneWay(s.message)
	if s.refused(err) {
		err = p.Producer.SendOneWay(m)
	}
	s.end(mq.SendResult{}, err)
	return err
}

// sending is a message on its way.
type sending struct {
	t       *Telemetry
	ctx     context.Context // with the span
	span    trace.Span      // nil: none
	message *mq.Message     // with the creation context
	sent    *mq.Message     // the caller's; only compared, and named by topic
	topic   string          // the caller's message is its own again when this ends
	began   time.Time
}

// begin begins the span of a send, and writes its context into a copy of the
// message, unless that has a creation context already.
func (p *Producer) begin(ctx context.Context, m *mq.Message) sending {
	t := p.t
	s := sending{t: t, ctx: ctx, message: m, sent: m, topic: m.Topic, began: t.metrics.now()}
	if t.tracer == nil {
		return s
	}
	created, _ := t.creation(m)
	op := opSend
	var links []trace.Link
	if created.IsValid() {
		op, links = opSendCreated, []trace.Link{{SpanContext: created}}
	}
	s.ctx, s.span = t.tracer.Start(ctx, op.spanName(m.Topic), trace.WithSpanKind(op.kind), trace.WithLinks(links...),
		trace.WithAttributes(p.client(appendMessage(t.attributes(op, m.Topic), m))...))
	if !created.IsValid() {
		s.message = t.inject(s.ctx, m)
	}
	return s
}

func (p *Producer) client(kvs []attribute.KeyValue) []attribute.KeyValue {
	if group := p.Group(); group != "" {
		kvs = append(kvs, semconv.MessagingClientID(group))
	}
	return kvs
}

// inject returns a copy of the message that carries the context; the message
// itself if there is nothing to carry.
func (t *Telemetry) inject(ctx context.Context, m *mq.Message) *mq.Message {
	carrier := propagation.MapCarrier{}
	t.propagator.Inject(ctx, carrier)
	if len(carrier) == 0 {
		return m
	}
	copied := *m
	copied.Properties = make(map[string]string, len(m.Properties)+len(carrier))
	maps.Copy(copied.Properties, m.Properties)
	maps.Copy(copied.Properties, carrier)
	return &copied
}

// refused reports whether the message could not be sent, and perhaps for what it
// carries: there is a limit to what properties take. The caller's own message has
// to go through whatever is emitted about it.
func (s *sending) refused(err error) bool {
	return err != nil && s.message != s.sent && errors.Is(err, mq.ErrInvalidMessage)
}

func (s *sending) end(result mq.SendResult, err error) {
	if s.span != nil {
		if !result.ID.IsZero() && s.span.IsRecording() {
			s.span.SetAttributes(appendPlace(nil, result.ID, result.Queue)...)
		}
		end(s.span, err)
	}
	sent := series{operation: opSend, topic: s.topic}
	s.t.metrics.took(s.ctx, sent, s.began, err)
	s.t.metrics.sending(s.ctx, sent, 1, err)
}
