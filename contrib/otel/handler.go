package mqotel

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/pocketmq/mq"
)

// attemptKey is an attribute of our own: which delivery of the message it is. The
// conventions have none.
const attemptKey = attribute.Key("pocketmq.message.attempt")

// NewPushConsumer is mq.Broker.NewPushConsumer: the consumer is the broker's own,
// and its handler is what Handler returns.
func (t *Telemetry) NewPushConsumer(b *mq.Broker, group string, handler mq.Handler, options *mq.PushOptions) (*mq.PushConsumer, error) {
	var o mq.PushOptions
	if options != nil {
		o = *options
	}
	if handler != nil {
		handler = newHandler(t.client(group, o.Instance, o.Model), true, handler)
	}
	return b.NewPushConsumer(group, handler, options)
}

// Handler returns a handler that leaves a span and metrics, and does otherwise what
// the handler does; the handler itself if nothing is to be emitted. It is for
// messages that come from elsewhere than NewPushConsumer: a program that polls
// calls it for each message. It does not count them as consumed: what polled does.
func (t *Telemetry) Handler(group string, handler mq.Handler) mq.Handler {
	return newHandler(t.client(group, "", mq.Clustering), false, handler)
}

func newHandler(c client, counts bool, handler mq.Handler) mq.Handler {
	if c.t == nil {
		return handler
	}
	p := &processor{client: c, counts: counts, handler: handler}
	return p.process
}

// processor is a handler with its span and metrics.
type processor struct {
	client  client
	counts  bool // the handler's call is the delivery
	handler mq.Handler
}

func (p *processor) process(ctx context.Context, m *mq.Message) (err error) {
	t, topic := p.client.t, m.Topic // which is the handler's to change
	began := t.metrics.now()
	var span trace.Span
	if t.tracer != nil {
		ctx, span = p.start(ctx, m)
	}
	// A panic is the broker's, with the stack it began with: it goes on, and this
	// is how it is seen on its way.
	verdict := errPanic
	defer func() { p.end(ctx, topic, span, began, verdict) }()
	err = p.handler(ctx, m)
	verdict = err
	return err
}

// start begins the span of a message, and returns the context for its handler.
func (p *processor) start(ctx context.Context, m *mq.Message) (context.Context, trace.Span) {
	t := p.client.t
	created, carried := t.creation(m)
	if b := baggage.FromContext(carried); b.Len() > 0 {
		ctx = baggage.ContextWithBaggage(ctx, b)
	}
	var links []trace.Link
	switch {
	case !created.IsValid():
	case t.parent:
		ctx = trace.ContextWithRemoteSpanContext(ctx, created)
	default:
		links = []trace.Link{{SpanContext: created}}
	}
	kvs := appendPlace(appendMessage(p.client.attributes(opProcess, m.Topic), m), m.ID, m.Queue)
	return t.tracer.Start(ctx, opProcess.spanName(m.Topic), trace.WithSpanKind(opProcess.kind), trace.WithLinks(links...),
		trace.WithAttributes(append(kvs, attemptKey.Int(m.Attempt))...))
}

func (p *processor) end(ctx context.Context, topic string, span trace.Span, began time.Time, err error) {
	if span != nil {
		end(span, err)
	}
	s := series{opProcess, topic, p.client.group}
	p.client.t.metrics.processed(ctx, s, began, err)
	if p.counts {
		p.client.t.metrics.consuming(ctx, s, 1)
	}
}
