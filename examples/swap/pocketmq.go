package main

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pocketmq/mq"
	pocketmq "github.com/pocketmq/mq/contrib/watermill"
)

// pocketTransport is PocketMQ in a directory.
type pocketTransport struct{ b *mq.Broker }

func openPocketMQ(dir string) (transport, error) {
	b, err := mq.Open(dir, &mq.Options{Durability: mq.Written}) // as JetStream's default: the sync comes a little later
	if err != nil {
		return nil, err
	}
	return pocketTransport{b}, nil
}

func (t pocketTransport) publisher() (message.Publisher, error) {
	return pocketmq.NewPublisher(t.b, nil)
}

func (t pocketTransport) subscriber(group string) (message.Subscriber, error) {
	return pocketmq.NewSubscriber(t.b, &pocketmq.SubscriberOptions{Group: group})
}

func (t pocketTransport) close() error { return t.b.Close() }
