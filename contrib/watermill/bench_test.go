package pocketmq_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/pocketmq/mq"
	pocketmq "github.com/pocketmq/mq/contrib/watermill"
	"github.com/pocketmq/mq/mqtest"
)

// BenchmarkSubscriber is the suite's: a message published at a time, read and
// acked at a time. Watermill's own channel, which keeps nothing, is the reference.
func BenchmarkSubscriber(b *testing.B) {
	b.Run("gochannel", func(b *testing.B) {
		tests.BenchSubscriber(b, func(n int) (message.Publisher, message.Subscriber) {
			ps := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: int64(n)}, nil)
			return ps, ps
		})
	})
	for name, o := range map[string]mq.Durability{"written": mq.Written, "synced": mq.Synced} {
		b.Run("pocketmq/durability="+name, func(b *testing.B) {
			broker := mqtest.Open(b, &mq.Options{Durability: o})
			tests.BenchSubscriber(b, func(int) (message.Publisher, message.Subscriber) {
				return newPublisher(b, broker, nil), newSubscriber(b, broker, &pocketmq.SubscriberOptions{Group: "G"})
			})
		})
	}
}
