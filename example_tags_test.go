package mq_test

import (
	"context"
	"fmt"
	"log"

	"github.com/pocketmq/mq"
)

// A subscription may want some tags of a topic only. What it does not want is
// passed over by the index, without being read.
func ExampleTags() {
	ctx := context.Background()
	b, err := mq.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if err := b.CreateTopic("OrderTopic", &mq.TopicConfig{Queues: 1}); err != nil {
		log.Fatal(err)
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, tag := range []string{"CreateOrder", "ShipOrder", "PayOrder", "ShipOrder"} {
		if _, err := p.Send(ctx, &mq.Message{Topic: "OrderTopic", Tag: tag}); err != nil {
			log.Fatal(err)
		}
	}

	c, err := b.NewPullConsumer("PointsGroup", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("OrderTopic", mq.Tags("CreateOrder", "PayOrder")); err != nil {
		log.Fatal(err)
	}
	ms, err := c.Poll(ctx, 32)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range ms {
		fmt.Println(m.Offset, m.Tag)
	}
	// Output:
	// 0 CreateOrder
	// 2 PayOrder
}

// RocketMQ's notation means the same.
func ExampleTagExpr() {
	fmt.Println(mq.TagExpr("PayOrder || CreateOrder"))
	fmt.Println(mq.TagExpr("*"))
	// Output:
	// CreateOrder || PayOrder
	// *
}
