package pocketmq_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	pocketmq "github.com/pocketmq/mq/contrib/watermill"
	"github.com/pocketmq/mq/mqtest"
)

// TestEverythingTravels: UUID, metadata and payload come back as they were,
// whatever bytes they are of.
func TestEverythingTravels(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	var all strings.Builder
	for c := range 256 {
		all.WriteByte(byte(c))
	}
	sent := []*message.Message{
		message.NewMessage("one", message.Payload(all.String())),
		message.NewMessage("", nil),
		message.NewMessage(all.String(), message.Payload{}),
	}
	sent[0].Metadata.Set(all.String(), all.String())
	sent[0].Metadata.Set("", "")
	p := newPublisher(t, b, &pocketmq.PublisherOptions{ShardingKey: pocketmq.KeyFromMetadata("none")}) // one queue
	require.NoError(t, p.Publish("T", sent...))
	require.NoError(t, p.Publish("T"))
	ch := subscribe(t, newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G", Ordered: true}), "T")
	for _, want := range sent {
		got := next(t, ch)
		require.True(t, want.Equals(got), "%+v is not %+v", got, want)
		require.NotNil(t, got.Payload)
		require.NotNil(t, got.Metadata)
		require.True(t, got.Ack())
	}
}

// TestForeignMessage: what was sent without Watermill has a UUID, and what
// Watermill has no word for is found by the context.
func TestForeignMessage(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	sent, err := p.Send(t.Context(), &mq.Message{Topic: "T", Tag: "a", Keys: []string{"k"}, Properties: map[string]string{"p": "v"}})
	require.NoError(t, err)
	got := next(t, subscribe(t, newSubscriber(t, b, nil), "T"))
	require.Equal(t, sent.ID.String(), got.UUID)
	require.Equal(t, message.Metadata{"p": "v"}, got.Metadata)
	m := pocketmq.FromContext(got.Context())
	require.Equal(t, "a", m.Tag)
	require.Equal(t, []string{"k"}, m.Keys)
	require.Equal(t, 1, m.Attempt)
	require.Nil(t, pocketmq.FromContext(t.Context()))
}

// TestPublishAllOrNothing: of messages that are published together none is
// stored if one cannot be.
func TestPublishAllOrNothing(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	p := newPublisher(t, b, nil)
	good := message.NewMessage("good", nil)
	bad := map[string]*message.Message{
		"metadata too large": message.NewMessage("bad", nil),
		"the UUID's field":   message.NewMessage("bad", nil),
		"a delay of words":   message.NewMessage("bad", nil),
	}
	bad["metadata too large"].Metadata.Set("m", strings.Repeat("x", 33_000))
	bad["the UUID's field"].Metadata.Set(pocketmq.UUIDProperty, "x")
	bad["a delay of words"].Metadata.Set(delay.DelayedForKey, "soon")
	for name, m := range bad {
		require.ErrorIs(t, p.Publish("T", good, m), mq.ErrInvalidMessage, name)
	}
	require.NoError(t, p.Publish("T", good))
	ch := subscribe(t, newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G"}), "T")
	require.Equal(t, []string{"good"}, consume(t, ch, 1))
	total, _, err := b.Lag("G")
	require.NoError(t, err)
	require.Zero(t, total)
}

// TestPublishAfterTimeout: a message whose handler's time is over can still be
// published, as the poison queue has to.
func TestPublishAfterTimeout(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, newPublisher(t, b, nil).Publish("T", message.NewMessageWithContext(ctx, "late", nil)))
}

func TestClosedPublisher(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	p, other := newPublisher(t, b, nil), newPublisher(t, b, nil)
	require.NoError(t, p.Close())
	require.NoError(t, p.Close())
	require.ErrorIs(t, p.Publish("T", message.NewMessage("1", nil)), mq.ErrClosed)
	require.NoError(t, other.Publish("T", message.NewMessage("1", nil)))
	require.NoError(t, b.Close())
	require.ErrorIs(t, other.Publish("T", message.NewMessage("1", nil)), mq.ErrClosed)
	_, err := pocketmq.NewPublisher(b, nil)
	require.ErrorIs(t, err, mq.ErrClosed)
}

// TestDelay: a message with Watermill's delay comes at its time and not before,
// and a second publication of what has waited does not wait again.
func TestDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, nil)
		time.Sleep(300 * time.Millisecond) // not on a second
		p, err := delay.NewPublisher(newPublisher(t, b, nil), delay.PublisherConfig{AllowNoDelay: true})
		require.NoError(t, err)
		start := time.Now()
		want := map[string]time.Duration{"now": 0, "for": 1500 * time.Millisecond, "until": 2500 * time.Millisecond, "past": 0}
		for id, d := range map[string]delay.Delay{
			"for": delay.For(want["for"]), "until": delay.Until(start.Add(want["until"])), "past": delay.For(-time.Hour),
		} {
			m := message.NewMessage(id, nil)
			m.SetContext(delay.WithContext(t.Context(), d))
			require.NoError(t, p.Publish("T", m))
		}
		require.NoError(t, p.Publish("T", message.NewMessage("now", nil)))
		ch := subscribe(t, newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G"}), "T")
		for range want {
			m := next(t, ch)
			late := time.Since(start) - want[m.UUID]
			require.True(t, late >= 0 && late < 10*time.Millisecond, "%s is %v late", m.UUID, late)
			require.True(t, m.Ack())
			if m.UUID == "for" {
				time.Sleep(500 * time.Millisecond) // beyond the second that it was due in
				require.NoError(t, p.Publish("forwarded", m))
			}
		}
		again := time.Now()
		ch = subscribe(t, newSubscriber(t, b, &pocketmq.SubscriberOptions{Group: "G2"}), "forwarded")
		next(t, ch).Ack()
		require.Less(t, time.Since(again), 10*time.Millisecond)
	})
}

// TestDelayMetadata: either field alone means what it says.
func TestDelayMetadata(t *testing.T) {
	t.Parallel()
	for field, value := range map[string]func() string{
		delay.DelayedForKey:   func() string { return "3s" },
		delay.DelayedUntilKey: func() string { return time.Now().Add(3 * time.Second).Format(time.RFC3339) },
	} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, nil)
			m := message.NewMessage("m", nil)
			m.Metadata.Set(field, value())
			start := time.Now() // on a second, in a bubble
			require.NoError(t, newPublisher(t, b, nil).Publish("T", m))
			next(t, subscribe(t, newSubscriber(t, b, nil), "T")).Ack()
			require.InDelta(t, 3*time.Second, time.Since(start), float64(10*time.Millisecond), field)
		})
	}
}
