package mqotel

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pocketmq/mq"
)

// TestSend: name, kind, parent and all attributes of the span of a send, and that
// its context is what the message carries.
func TestSend(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Namespace: "shop"})
	p := l.producer(&mq.ProducerOptions{Group: "orders"})
	ctx, request := l.tracer.Start(t.Context(), "request")
	m := &mq.Message{Topic: "T", Tag: "Create", Keys: []string{"a", "b"}, Body: []byte("12345"), Properties: map[string]string{"region": "eu"}}
	result, err := p.Send(ctx, m)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"region": "eu"}, m.Properties, "the caller's message is as it was")

	span := l.one("send T")
	require.Equal(t, trace.SpanKindProducer, span.SpanKind())
	require.Equal(t, request.SpanContext().SpanID(), span.Parent().SpanID())
	require.Equal(t, codes.Unset, span.Status().Code)
	require.Equal(t, "https://opentelemetry.io/schemas/1.43.0", span.InstrumentationScope().SchemaURL)
	require.Equal(t, map[string]any{
		"messaging.system": "rocketmq", "messaging.rocketmq.namespace": "shop",
		"messaging.operation.name": "send", "messaging.operation.type": "send",
		"messaging.destination.name": "T", "messaging.destination.partition.id": "0",
		"messaging.client.id": "orders", "messaging.message.id": result.ID.String(), "messaging.message.body.size": int64(5),
		"messaging.rocketmq.message.tag": "Create", "messaging.rocketmq.message.keys": []string{"a", "b"}, "messaging.rocketmq.message.type": "normal",
	}, attributes(span))

	stored, err := l.b.MessageByID(result.ID)
	require.NoError(t, err)
	require.Equal(t, "eu", stored.Properties["region"])
	created, _ := l.tel.creation(stored)
	require.Equal(t, span.SpanContext().SpanID(), created.SpanID())
	require.Equal(t, span.SpanContext().TraceID(), created.TraceID())
}

// TestMessageTypes: what the conventions call a message, by what it asks for.
func TestMessageTypes(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		m    mq.Message
		want map[string]any
	}{
		"normal": {mq.Message{}, map[string]any{"type": "normal"}},
		"fifo":   {mq.Message{ShardingKey: "k"}, map[string]any{"type": "fifo", "group": "k"}},
		"level":  {mq.Message{DelayLevel: 3}, map[string]any{"type": "delay", "delay_time_level": int64(3)}},
		"time":   {mq.Message{DeliverAt: at}, map[string]any{"type": "delay", "delivery_timestamp": at.UnixMilli()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, Options{})
			c.m.Topic = "T"
			_, err := l.producer(nil).Send(t.Context(), &c.m)
			require.NoError(t, err)
			got := attributes(l.one("send T"))
			for k, v := range c.want {
				require.Equal(t, v, got["messaging.rocketmq.message."+k], k)
			}
		})
	}
	kvs := appendMessage(nil, &mq.Message{Delay: time.Minute})
	require.InDelta(t, time.Now().Add(time.Minute).UnixMilli(), kvs[2].Value.AsInt64(), 10_000)
}

// TestSendAsyncAndOneWay: their spans end, whatever becomes of the message, and
// before the callback is called.
func TestSendAsyncAndOneWay(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	p := l.producer(nil)
	ctx, request := l.tracer.Start(t.Context(), "request")
	done := make(chan mq.SendResult, 1)
	require.NoError(t, p.SendAsync(ctx, &mq.Message{Topic: "T"}, func(r mq.SendResult, err error) {
		if err == nil && len(l.spans.Ended()) == 1 {
			done <- r
		}
		close(done)
	}))
	r := <-done
	require.False(t, r.ID.IsZero(), "sent, and its span had ended")
	require.NoError(t, p.SendAsync(ctx, &mq.Message{Topic: "T"}, nil))
	for _, s := range l.ended("send T", 2) {
		require.Equal(t, request.SpanContext().TraceID(), s.SpanContext().TraceID())
		require.NotEmpty(t, attributes(s)["messaging.message.id"])
	}
	require.NoError(t, p.SendOneWay(&mq.Message{Topic: "T"}))
	require.NoError(t, p.SendOneWayContext(ctx, &mq.Message{Topic: "T"}))
	spans := l.ended("send T", 4)
	require.False(t, spans[2].Parent().IsValid())
	require.Equal(t, request.SpanContext().SpanID(), spans[3].Parent().SpanID())

	require.ErrorIs(t, p.SendAsync(ctx, &mq.Message{Topic: "no topic"}, nil), mq.ErrInvalidName)
	require.ErrorIs(t, p.SendOneWay(&mq.Message{Topic: "no topic"}), mq.ErrInvalidName)
	for _, s := range l.ended("send no topic", 2) {
		require.Equal(t, codes.Error, s.Status().Code)
		require.Equal(t, "invalid_name", attributes(s)[failed])
	}
	for _, m := range []*mq.Message{nil} { // refused by the broker, as without
		_, err := p.Send(ctx, m)
		require.ErrorIs(t, err, mq.ErrInvalidMessage)
		require.ErrorIs(t, p.SendAsync(ctx, m, nil), mq.ErrInvalidMessage)
		require.ErrorIs(t, p.SendOneWay(m), mq.ErrInvalidMessage)
		_, err = p.SendBatch(ctx, []*mq.Message{{Topic: "T"}, m})
		require.ErrorIs(t, err, mq.ErrInvalidMessage)
	}
}

// TestOwnCreationContext: a context that a message has already is not replaced, and
// the span links to it.
func TestOwnCreationContext(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	p := l.producer(nil)
	const own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	m := &mq.Message{Topic: "T", Properties: map[string]string{"traceparent": own}}
	result, err := p.Send(t.Context(), m)
	require.NoError(t, err)
	stored, err := l.b.MessageByID(result.ID)
	require.NoError(t, err)
	require.Equal(t, own, stored.Properties["traceparent"])
	span := l.one("send T")
	require.Equal(t, trace.SpanKindClient, span.SpanKind())
	require.Equal(t, "b7ad6b7169203331", linked(span)[0].String())

	_, err = p.SendBatch(t.Context(), []*mq.Message{m, {Topic: "T"}})
	require.NoError(t, err)
	create := l.one("create T") // of the second alone
	span = l.ended("send T", 2)[1]
	require.Equal(t, []string{"b7ad6b7169203331", create.SpanContext().SpanID().String()}, []string{linked(span)[0].String(), linked(span)[1].String()})
}

// TestSendBatch: a span for each message, whose context it carries, and one for
// all, which links to them.
func TestSendBatch(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	p := l.producer(nil)
	ctx, request := l.tracer.Start(t.Context(), "request")
	results, err := p.SendBatch(ctx, []*mq.Message{{Topic: "T", Tag: "A"}, {Topic: "T", Tag: "B"}, {Topic: "U"}})
	require.NoError(t, err)
	send := l.one("send")
	require.Equal(t, trace.SpanKindClient, send.SpanKind())
	require.Equal(t, map[string]any{
		"messaging.system": "rocketmq", "messaging.operation.name": "send", "messaging.operation.type": "send", "messaging.batch.message_count": int64(3),
	}, attributes(send))
	created := append(l.ended("create T", 2), l.one("create U"))
	for i, s := range created {
		require.Equal(t, trace.SpanKindProducer, s.SpanKind())
		require.Equal(t, request.SpanContext().SpanID(), s.Parent().SpanID())
		require.Equal(t, results[i].ID.String(), attributes(s)["messaging.message.id"])
		require.Equal(t, s.SpanContext().SpanID(), linked(send)[i])
		stored, err := l.b.MessageByID(results[i].ID)
		require.NoError(t, err)
		carried, _ := l.tel.creation(stored)
		require.Equal(t, s.SpanContext().SpanID(), carried.SpanID())
	}
	points, _ := l.measured("messaging.client.sent.messages")
	require.Equal(t, map[attribute.Distinct]int64{
		labels(opName, "send", opType, "send", topic, "T"): 2,
		labels(opName, "send", opType, "send", topic, "U"): 1,
	}, points)
}

// TestContextThatDoesNotFit: a message that is as large as may be is sent, without
// the context, however it is sent.
func TestContextThatDoesNotFit(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	p := l.producer(nil)
	full := func() *mq.Message {
		return &mq.Message{Topic: "T", Properties: map[string]string{"much": string(make([]byte, 32_700))}}
	}
	plain, err := l.b.NewProducer(nil)
	require.NoError(t, err)
	_, err = plain.Send(t.Context(), full())
	require.NoError(t, err, "it fits alone")

	result, err := p.Send(t.Context(), full())
	require.NoError(t, err)
	stored, err := l.b.MessageByID(result.ID)
	require.NoError(t, err)
	require.Len(t, stored.Properties, 1)
	require.NoError(t, p.SendAsync(t.Context(), full(), nil))
	require.NoError(t, p.SendOneWay(full()))
	_, err = p.SendBatch(t.Context(), []*mq.Message{full(), full()})
	require.NoError(t, err)
	require.EqualValues(t, 6, l.b.Stats().Sent)

	over := &mq.Message{Topic: "T", Properties: map[string]string{"much": string(make([]byte, 40_000))}}
	_, err = p.Send(t.Context(), over)
	require.ErrorIs(t, err, mq.ErrInvalidMessage)
}

// TestSendMetrics: how many, how long, and under which labels; topics that are
// none do not become labels.
func TestSendMetrics(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	p := l.producer(nil)
	for range 3 {
		_, err := p.Send(t.Context(), &mq.Message{Topic: "T"})
		require.NoError(t, err)
	}
	for _, name := range []string{"no topic 1", "no topic 2"} {
		_, err := p.Send(t.Context(), &mq.Message{Topic: name})
		require.ErrorIs(t, err, mq.ErrInvalidName)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Send(cancelled, &mq.Message{Topic: "T", Body: make([]byte, 16<<20)})
	require.ErrorIs(t, err, mq.ErrTooLarge)
	want := map[attribute.Distinct]int64{
		labels(opName, "send", opType, "send", topic, "T"):                      3,
		labels(opName, "send", opType, "send", failed, "invalid_name"):          2,
		labels(opName, "send", opType, "send", topic, "T", failed, "too_large"): 1,
	}
	points, unit := l.measured("messaging.client.sent.messages")
	require.Equal(t, want, points)
	require.Equal(t, "{message}", unit)
	points, unit = l.measured("messaging.client.operation.duration")
	require.Equal(t, want, points)
	require.Equal(t, "s", unit)
}
