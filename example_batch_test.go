package mq_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/pocketmq/mq"
)

// A batch is stored as a whole or not at all, over any topics.
func ExampleProducer_SendBatch() {
	ctx := context.Background()
	b, err := mq.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	results, err := p.SendBatch(ctx, []*mq.Message{
		{Topic: "OrderTopic", Tag: "PayOrder", Body: []byte("42")},
		{Topic: "LogisticsTopic", Tag: "ShipOrder", Body: []byte("42")},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		fmt.Println(r.Topic, "offset", r.Offset)
	}
	_, err = p.SendBatch(ctx, []*mq.Message{
		{Topic: "OrderTopic", Body: []byte("43")},
		{Topic: "no such name"},
	})
	fmt.Println(errors.Is(err, mq.ErrInvalidName), b.Stats().Messages)
	// Output:
	// OrderTopic offset 0
	// LogisticsTopic offset 0
	// true 2
}
