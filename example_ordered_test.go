package mq_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/pocketmq/mq"
)

// Messages of one sharding key are handled one at a time and in order, also when
// one of them fails; other keys go on beside them.
func ExamplePushOptions_ordered() {
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
	for _, step := range []string{"create", "pay", "ship"} {
		m := &mq.Message{Topic: "OrderTopic", ShardingKey: "order-42", Body: []byte(step)}
		if _, err := p.Send(ctx, m); err != nil {
			log.Fatal(err)
		}
	}

	var left sync.WaitGroup
	left.Add(3)
	c, err := b.NewPushConsumer("StockGroup", func(_ context.Context, m *mq.Message) error {
		if string(m.Body) == "pay" && m.Attempt == 1 {
			fmt.Println("pay: not now")
			return errors.New("the bank is busy")
		}
		fmt.Printf("%s, attempt %d\n", m.Body, m.Attempt)
		left.Done()
		return nil
	}, &mq.PushOptions{
		Ordered: true,
		Backoff: func(int) time.Duration { return time.Millisecond },
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("OrderTopic", mq.All); err != nil {
		log.Fatal(err)
	}
	left.Wait()
	// Output:
	// create, attempt 1
	// pay: not now
	// pay, attempt 2
	// ship, attempt 1
}
