package mqpubsub_test

import (
	"context"
	"fmt"
	"log"

	"gocloud.dev/pubsub"

	"github.com/pocketmq/mq"
	mqpubsub "github.com/pocketmq/mq/contrib/gocloud"
)

// A program written for the Go CDK, on a broker of its own process.
func Example() {
	ctx := context.Background()
	b, err := mq.OpenMemory(nil) // or mq.Open("data", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	topic, err := mqpubsub.OpenTopic(b, "OrderTopic", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer topic.Shutdown(ctx)
	sub, err := mqpubsub.OpenSubscription(b, "OrderGroup", "OrderTopic", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Shutdown(ctx)

	err = topic.Send(ctx, &pubsub.Message{Body: []byte("order 42"), Metadata: map[string]string{"region": "eu"}})
	if err != nil {
		log.Fatal(err)
	}
	m, err := sub.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s from %s\n", m.Body, m.Metadata["region"])
	m.Ack()
	// Output: order 42 from eu
}

// By URL, nothing of PocketMQ appears but the import for its side effect.
func Example_url() {
	ctx := context.Background()
	topic, err := pubsub.OpenTopic(ctx, "pocketmq+mem://shop?topic=OrderTopic")
	if err != nil {
		log.Fatal(err)
	}
	defer topic.Shutdown(ctx)
	sub, err := pubsub.OpenSubscription(ctx, "pocketmq+mem://shop?topic=OrderTopic&group=OrderGroup")
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Shutdown(ctx)

	// Tag, keys, sharding key and delay are set before sending.
	err = topic.Send(ctx, &pubsub.Message{Body: []byte("order 42"), BeforeSend: func(as func(any) bool) error {
		var m *mq.Message
		if as(&m) {
			m.Tag = "CreateOrder"
		}
		return nil
	}})
	if err != nil {
		log.Fatal(err)
	}
	m, err := sub.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	var native *mq.Message
	if m.As(&native) {
		fmt.Printf("%s: %s, attempt %d\n", native.Tag, m.Body, native.Attempt)
	}
	m.Ack()
	// Output: CreateOrder: order 42, attempt 1
}
