package mq_test

import (
	"context"
	"fmt"
	"log"

	"github.com/pocketmq/mq"
)

// A group can be moved: back, so that messages come again, or forward past some.
// Living members go on from there.
func ExampleBroker_ResetOffset() {
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
	for range 20 {
		if _, err := p.Send(ctx, &mq.Message{Topic: "Events"}); err != nil {
			log.Fatal(err)
		}
	}
	c, err := b.NewPullConsumer("Audit", &mq.PullOptions{From: mq.Latest})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("Events", mq.All); err != nil {
		log.Fatal(err)
	}
	q := mq.Queue{Topic: "Events", ID: 2}
	for _, to := range []mq.Whence{mq.Earliest, mq.AtOffset(q, 3), mq.Latest} {
		if err := b.ResetOffset("Audit", "Events", to); err != nil {
			log.Fatal(err)
		}
		behind, _, err := b.Lag("Audit")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(to, "-", behind, "to go")
	}
	// Output:
	// earliest - 20 to go
	// at Events:2 offset 3 - 17 to go
	// latest - 0 to go
}
