package pocketmq_test

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	pocketmq "github.com/pocketmq/mq/contrib/watermill"
)

// soon bounds what must happen.
const soon = 20 * time.Second

func newPublisher(t testing.TB, b *mq.Broker, o *pocketmq.PublisherOptions) *pocketmq.Publisher {
	t.Helper()
	p, err := pocketmq.NewPublisher(b, o)
	require.NoError(t, err)
	return p
}

func newSubscriber(t testing.TB, b *mq.Broker, o *pocketmq.SubscriberOptions) *pocketmq.Subscriber {
	t.Helper()
	s, err := pocketmq.NewSubscriber(b, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func subscribe(t testing.TB, s *pocketmq.Subscriber, topic string) <-chan *message.Message {
	t.Helper()
	ch, err := s.Subscribe(t.Context(), topic)
	require.NoError(t, err)
	return ch
}

// publish sends a message for each id, which is its payload too.
func publish(t testing.TB, b *mq.Broker, topic string, ids ...string) {
	t.Helper()
	p := newPublisher(t, b, nil)
	for _, id := range ids {
		require.NoError(t, p.Publish(topic, message.NewMessage(id, message.Payload(id))))
	}
}

// next is the next message of a channel.
func next(t testing.TB, ch <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case m, open := <-ch:
		require.True(t, open, "the channel is closed")
		return m
	case <-time.After(soon):
		require.Fail(t, "no message")
		return nil
	}
}

// consume acks n messages and returns their UUIDs.
func consume(t testing.TB, ch <-chan *message.Message, n int) (ids []string) {
	t.Helper()
	for range n {
		m := next(t, ch)
		require.True(t, m.Ack())
		<-m.Context().Done() // until it is acknowledged
		ids = append(ids, m.UUID)
	}
	return ids
}

// ended waits for the channel to be closed, with nothing in it.
func ended(t testing.TB, ch <-chan *message.Message) {
	t.Helper()
	select {
	case m, open := <-ch:
		require.False(t, open, "a message more: %v", m)
	case <-time.After(soon):
		require.Fail(t, "the channel is not closed")
	}
}
