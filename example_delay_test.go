package mq_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/pocketmq/mq"
)

// A reminder is sent to come later, unless the order is paid before.
func ExampleProducer_Recall() {
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
	for order, delay := range map[string]time.Duration{"order-1": 50 * time.Millisecond, "order-2": 24 * time.Hour} {
		r, err := p.Send(ctx, &mq.Message{Topic: "Reminders", Body: []byte(order), Delay: delay})
		if err != nil {
			log.Fatal(err)
		}
		if order == "order-2" { // it is paid
			fmt.Println("recalled:", p.Recall(ctx, r.RecallHandle()) == nil)
			fmt.Println("again:", errors.Is(p.Recall(ctx, r.RecallHandle()), mq.ErrNotWaiting))
		}
	}
	c, err := b.NewPullConsumer("Mailer", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("Reminders", mq.All); err != nil {
		log.Fatal(err)
	}
	ms, err := c.Poll(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s is not paid\n", ms[0].Body)
	fmt.Println("waiting:", b.Stats().Waiting)
	// Output:
	// recalled: true
	// again: true
	// order-1 is not paid
	// waiting: 0
}
