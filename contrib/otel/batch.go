package mqotel

import (
	"context"
	"errors"
	"time"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/pocketmq/mq"
)

// SendBatch is mq.Producer.SendBatch. Each message that has no creation context
// gets a span "create", and the span of the send links to all of them.
func (p *Producer) SendBatch(ctx context.Context, ms []*mq.Message) ([]mq.SendResult, error) {
	if p.t == nil {
		return p.Producer.SendBatch(ctx, ms)
	}
	began := p.t.metrics.now()
	b, carrying := p.create(ctx, ms)
	results, err := p.Producer.SendBatch(b.ctx, carrying)
	if b.created != nil && errors.Is(err, mq.ErrInvalidMessage) {
		results, err = p.Producer.SendBatch(b.ctx, ms) // as in sending.refused
	}
	b.end(results, err)
	p.t.metrics.took(b.ctx, series{operation: opSend, topic: commonTopic(ms)}, began, err)
	for topic, n := range countTopics(ms) {
		p.t.metrics.sending(b.ctx, series{operation: opSend, topic: topic}, n, err)
	}
	return results, err
}

// batch is several messages on their way.
type batch struct {
	ctx     context.Context
	span    trace.Span   // nil: none
	created []trace.Span // of each message; nil for one that had a creation context
	at      time.Time    // when they were created
}

// create begins the spans of a batch and returns what to send: messages that carry
// their contexts.
func (p *Producer) create(ctx context.Context, ms []*mq.Message) (batch, []*mq.Message) {
	t := p.t
	b := batch{ctx: ctx}
	if t.tracer == nil {
		return b, ms
	}
	b.at = time.Now()
	carrying := make([]*mq.Message, len(ms))
	b.created = make([]trace.Span, len(ms))
	links := make([]trace.Link, 0, len(ms))
	for i, m := range ms {
		carrying[i] = m
		if m == nil {
			continue // SendBatch says so
		}
		created, _ := t.creation(m)
		if !created.IsValid() {
			var inner context.Context
			inner, b.created[i] = t.tracer.Start(ctx, opCreate.spanName(m.Topic), trace.WithSpanKind(opCreate.kind), trace.WithTimestamp(b.at),
				trace.WithAttributes(p.client(appendMessage(t.attributes(opCreate, m.Topic), m))...))
			carrying[i] = t.inject(inner, m)
			created = b.created[i].SpanContext()
		}
		if created.IsValid() {
			links = append(links, trace.Link{SpanContext: created})
		}
	}
	topic := commonTopic(ms)
	kvs := append(t.attributes(opSendCreated, topic), semconv.MessagingBatchMessageCount(len(ms)))
	b.ctx, b.span = t.tracer.Start(ctx, opSendCreated.spanName(topic), trace.WithSpanKind(opSendCreated.kind), trace.WithLinks(links...),
		trace.WithAttributes(p.client(kvs)...))
	return b, carrying
}

// end ends the spans of a batch. Those of its messages lasted no time; they are
// kept open to learn which messages they are.
func (b *batch) end(results []mq.SendResult, err error) {
	if b.span == nil {
		return
	}
	for i, created := range b.created {
		if created == nil {
			continue
		}
		if i < len(results) && created.IsRecording() {
			created.SetAttributes(appendPlace(nil, results[i].ID, results[i].Queue)...)
		}
		created.End(trace.WithTimestamp(b.at))
	}
	end(b.span, err)
}

func countTopics(ms []*mq.Message) map[string]int {
	counts := map[string]int{}
	for _, m := range ms {
		if m != nil {
			counts[m.Topic]++
		}
	}
	return counts
}
