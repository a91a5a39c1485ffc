package pocketmq

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/mqtest"
)

// TestAckRefused: when acks cannot be stored any more the subscription ends, and
// does not go on handing out what nobody can consume.
func TestAckRefused(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	p, err := NewPublisher(b, nil)
	require.NoError(t, err)
	require.NoError(t, p.Publish("T", message.NewMessage("1", nil), message.NewMessage("2", nil)))
	s, err := NewSubscriber(b, &SubscriberOptions{Group: "G", Concurrency: 2})
	require.NoError(t, err)
	require.True(t, s.begin())
	sub, err := s.join("T")
	require.NoError(t, err)
	go sub.run(t.Context())
	one, two := <-sub.out, <-sub.out
	require.NoError(t, sub.consumer.Close()) // acks are refused from here
	one.Ack()
	select {
	case <-two.Context().Done():
	case <-time.After(20 * time.Second):
		t.Error("the other message is still out")
	}
	require.NoError(t, s.Close())
	_, open := <-sub.out
	require.False(t, open)
}
