package mqotel

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pocketmq/mq"
)

// TestProcess: a handler's span links to the send, begins a trace of its own, and
// is what the handler's context carries, with the message's baggage.
func TestProcess(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Propagator: withBaggage})
	seen := make(chan context.Context, 1)
	c, err := l.tel.NewPushConsumer(l.b, "G", func(ctx context.Context, m *mq.Message) error {
		m.Topic = "changed" // it is the handler's
		seen <- ctx
		return nil
	}, &mq.PushOptions{Instance: "me"})
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	member, err := baggage.NewMember("customer", "42")
	require.NoError(t, err)
	bag, err := baggage.New(member)
	require.NoError(t, err)
	result, err := l.producer(nil).Send(baggage.ContextWithBaggage(t.Context(), bag), &mq.Message{Topic: "T", ShardingKey: "k", Body: []byte("x")})
	require.NoError(t, err)

	ctx, span, send := <-seen, l.one("process T"), l.one("send T")
	require.Equal(t, span.SpanContext(), trace.SpanContextFromContext(ctx))
	require.Equal(t, "42", baggage.FromContext(ctx).Member("customer").Value())
	require.Equal(t, trace.SpanKindConsumer, span.SpanKind())
	require.False(t, span.Parent().IsValid())
	require.NotEqual(t, send.SpanContext().TraceID(), span.SpanContext().TraceID())
	require.Equal(t, []trace.SpanID{send.SpanContext().SpanID()}, linked(span))
	require.Equal(t, map[string]any{
		"messaging.system": "rocketmq", "messaging.operation.name": "process", "messaging.operation.type": "process",
		"messaging.destination.name": "T", "messaging.destination.partition.id": "0", "messaging.message.id": result.ID.String(),
		"messaging.message.body.size": int64(1), "messaging.consumer.group.name": "G", "messaging.client.id": "me",
		"messaging.rocketmq.consumption_model": "clustering", "messaging.rocketmq.message.type": "fifo", "messaging.rocketmq.message.group": "k",
		"pocketmq.message.attempt": int64(1),
	}, attributes(span))
	require.NoError(t, c.Close())
	points, _ := l.measured("messaging.process.duration")
	require.Equal(t, map[attribute.Distinct]int64{labels(opName, "process", opType, "process", topic, "T", group, "G"): 1}, points)
	points, _ = l.measured("messaging.client.consumed.messages")
	require.Equal(t, map[attribute.Distinct]int64{labels(opName, "process", opType, "process", topic, "T", group, "G"): 1}, points)
}

// TestParent: on request a handler's span is a child of the send, and no link.
func TestParent(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Parent: true, System: "pocketmq"})
	c, err := l.tel.NewPushConsumer(l.b, "G", func(context.Context, *mq.Message) error { return nil }, &mq.PushOptions{Model: mq.Broadcasting, Instance: "i"})
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	_, err = l.producer(nil).Send(t.Context(), &mq.Message{Topic: "T"})
	require.NoError(t, err)
	span, send := l.one("process T"), l.one("send T")
	require.Equal(t, send.SpanContext().SpanID(), span.Parent().SpanID())
	require.Equal(t, send.SpanContext().TraceID(), span.SpanContext().TraceID())
	require.Empty(t, span.Links())
	require.Equal(t, "pocketmq", attributes(span)["messaging.system"])
	require.Equal(t, "broadcasting", attributes(span)["messaging.rocketmq.consumption_model"])
	require.NoError(t, c.Close())
}

// TestHandlerFails: errors and panics end the span, are its status, and reach the
// broker as they were; each attempt has a span, linked to the same send.
func TestHandlerFails(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	failing := errors.New("out of teapots")
	c, err := l.tel.NewPushConsumer(l.b, "G", func(_ context.Context, m *mq.Message) error {
		switch m.Attempt {
		case 1:
			return failing
		case 2:
			panic("teapot")
		}
		return mq.Discard(failing)
	}, &mq.PushOptions{Backoff: mq.Immediate})
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	_, err = l.producer(nil).Send(t.Context(), &mq.Message{Topic: "T"})
	require.NoError(t, err)

	send, spans := l.one("send T"), l.ended("process T", 3)
	for i, want := range []string{"out of teapots", "mqotel: handler panicked", "mq: discarded: out of teapots"} {
		require.Equal(t, codes.Error, spans[i].Status().Code)
		require.Equal(t, want, spans[i].Status().Description)
		require.EqualValues(t, i+1, attributes(spans[i])["pocketmq.message.attempt"])
		require.Equal(t, []trace.SpanID{send.SpanContext().SpanID()}, linked(spans[i]))
	}
	require.Equal(t, "panic", attributes(spans[1])[failed])
	require.NoError(t, c.Close())
	var letters []*mq.Message
	for m, err := range l.b.DeadLetters("G") {
		require.NoError(t, err)
		letters = append(letters, m)
	}
	require.Len(t, letters, 1)
	require.Equal(t, "mq: discarded: out of teapots", letters[0].Origin.LastError)
	points, _ := l.measured("messaging.process.duration")
	require.EqualValues(t, 1, points[labels(opName, "process", opType, "process", topic, "T", group, "G", failed, "panic")])
}

// TestPanicKeepsItsStack: the broker sees the handler's panic where it was.
func TestPanicKeepsItsStack(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	h := l.tel.Handler("G", func(context.Context, *mq.Message) error { panic("teapot") })
	require.PanicsWithValue(t, "teapot", func() { _ = h(t.Context(), &mq.Message{Topic: "T"}) })
	require.Equal(t, codes.Error, l.one("process T").Status().Code)
}

// TestPull: Poll and Commit have spans that link to all messages; polling that
// brings nothing has none; what is polled is counted once, though a Handler
// processes it.
func TestPull(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	c, err := l.tel.NewPullConsumer(l.b, "G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	_, err = c.Poll(ended, 10)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	cancel()
	require.Empty(t, l.spans.Ended())
	_, err = l.producer(nil).SendBatch(t.Context(), []*mq.Message{{Topic: "T"}, {Topic: "T"}})
	require.NoError(t, err)
	var created []trace.SpanID
	for _, s := range l.ended("create T", 2) {
		created = append(created, s.SpanContext().SpanID())
	}

	ms, err := c.Poll(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, ms, 2)
	poll := l.one("poll T")
	require.Equal(t, trace.SpanKindClient, poll.SpanKind())
	require.Equal(t, created, linked(poll))
	require.Equal(t, map[string]any{
		"messaging.system": "rocketmq", "messaging.operation.name": "poll", "messaging.operation.type": "receive", "messaging.destination.name": "T",
		"messaging.batch.message_count": int64(2), "messaging.consumer.group.name": "G", "messaging.client.id": c.Name(),
		"messaging.rocketmq.consumption_model": "clustering",
	}, attributes(poll))

	h := l.tel.Handler("G", func(context.Context, *mq.Message) error { return nil })
	ctx, work := l.tracer.Start(t.Context(), "work")
	for _, m := range ms {
		require.NoError(t, h(ctx, m))
	}
	for i, s := range l.ended("process T", 2) {
		require.Equal(t, work.SpanContext().SpanID(), s.Parent().SpanID())
		require.Equal(t, created[i:i+1], linked(s))
	}
	require.NoError(t, c.Commit(t.Context(), ms...))
	commit := l.one("commit T")
	require.Equal(t, created, linked(commit))
	require.Equal(t, "settle", attributes(commit)[opType])
	require.NoError(t, c.Commit(t.Context()))
	require.Empty(t, l.one("commit").Links())
	points, _ := l.measured("messaging.client.consumed.messages")
	require.Equal(t, map[attribute.Distinct]int64{labels(opName, "poll", opType, "receive", topic, "T", group, "G"): 2}, points)

	_, err = l.producer(nil).Send(t.Context(), &mq.Message{Topic: "T"})
	require.NoError(t, err)
	for m, err := range c.Messages(t.Context()) {
		require.NoError(t, err)
		require.NoError(t, c.Commit(t.Context(), m))
		break
	}
	l.ended("poll T", 2)
	require.NotEmpty(t, attributes(l.ended("commit T", 2)[1])["messaging.message.id"], "of one message")
	require.NoError(t, c.Close())
	for _, err := range c.Messages(t.Context()) {
		require.ErrorIs(t, err, mq.ErrClosed)
	}
}

// TestSimple: each way to settle has its span, and one that fails says so.
func TestSimple(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	c, err := l.tel.NewSimpleConsumer(l.b, "G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	_, err = l.producer(nil).Send(t.Context(), &mq.Message{Topic: "T"})
	require.NoError(t, err)
	ms, err := c.Receive(t.Context(), 1, time.Minute)
	require.NoError(t, err)
	send := []trace.SpanID{l.one("send T").SpanContext().SpanID()}
	require.Equal(t, send, linked(l.one("receive T")))
	require.NoError(t, c.ChangeInvisible(t.Context(), ms[0], time.Hour))
	require.Equal(t, send, linked(l.one("change_invisible T")))
	require.NoError(t, c.Nack(t.Context(), ms...))
	require.Equal(t, send, linked(l.one("nack T")))
	ms, err = c.Receive(t.Context(), 1, time.Minute)
	require.NoError(t, err)
	require.NoError(t, c.Ack(t.Context(), ms...))
	require.ErrorIs(t, c.Ack(t.Context(), ms...), mq.ErrReceiptExpired)
	acks := l.ended("ack T", 2)
	require.Equal(t, codes.Unset, acks[0].Status().Code)
	require.Equal(t, codes.Error, acks[1].Status().Code)
	require.Equal(t, "receipt_expired", attributes(acks[1])[failed])
	require.Equal(t, "settle", attributes(acks[0])[opType])
	require.Equal(t, trace.SpanKindClient, acks[0].SpanKind())
	points, _ := l.measured("messaging.client.operation.duration")
	require.EqualValues(t, 1, points[labels(opName, "ack", opType, "settle", topic, "T", group, "G", failed, "receipt_expired")])
	require.EqualValues(t, 2, points[labels(opName, "receive", opType, "receive", topic, "T", group, "G")])
	require.ErrorIs(t, c.ChangeInvisible(t.Context(), nil, time.Hour), mq.ErrNotAssigned)
	require.NoError(t, c.Close())
}
