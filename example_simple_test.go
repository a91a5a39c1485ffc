package mq_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/pocketmq/mq"
)

// A simple consumer asks for messages and has them for a time. What it does not
// acknowledge within it comes again, to whoever asks then.
func ExampleSimpleConsumer() {
	b, err := mq.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	ctx := context.Background()
	c, err := b.NewSimpleConsumer("Thumbnails", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("Images", mq.All); err != nil {
		log.Fatal(err)
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := p.Send(ctx, &mq.Message{Topic: "Images", Body: []byte("cat.png")}); err != nil {
		log.Fatal(err)
	}

	first, err := c.Receive(ctx, 16, 20*time.Millisecond)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, attempt %d\n", first[0].Body, first[0].Attempt)
	again, err := c.Receive(ctx, 16, 20*time.Millisecond) // waits until the time of the first is up
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, attempt %d\n", again[0].Body, again[0].Attempt)
	fmt.Println("too late:", errors.Is(c.Ack(ctx, first...), mq.ErrReceiptExpired))

	// This takes longer than expected: ask for more time, then acknowledge.
	if err := c.ChangeInvisible(ctx, again[0], time.Minute); err != nil && !errors.Is(err, mq.ErrReceiptExpired) {
		log.Fatal(err)
	}
	// Output:
	// cat.png, attempt 1
	// cat.png, attempt 2
	// too late: true
}
