package mq_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/pocketmq/mq"
)

// A subscription may want what a condition says of a message's properties.
func ExampleSQL() {
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
	for _, amount := range []string{"20", "120.50", "300"} {
		m := &mq.Message{Topic: "OrderTopic", ShardingKey: "shop", Tag: "paid", Properties: map[string]string{"amount": amount}}
		if _, err := p.Send(ctx, m); err != nil {
			log.Fatal(err)
		}
	}

	c, err := b.NewPullConsumer("FraudGroup", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("OrderTopic", mq.SQL("TAGS = 'paid' AND amount > 100")); err != nil {
		log.Fatal(err)
	}
	ms, err := c.Poll(ctx, 32)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range ms {
		fmt.Println(m.Offset, m.Properties["amount"])
	}

	err = c.Subscribe("OrderTopic", mq.SQL("amount => 100"))
	fmt.Println(err)
	var where *mq.ExpressionError
	fmt.Println(errors.As(err, &where), where.Offset)
	// Output:
	// 1 120.50
	// 2 300
	// mq: invalid filter: "amount => 100": at offset 8: ">": want a property, a value or (
	// true 8
}
