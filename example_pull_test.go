package mq_test

import (
	"context"
	"fmt"
	"log"

	"github.com/pocketmq/mq"
)

// A pull consumer asks for messages and says itself what is consumed: there is
// no auto-commit.
func ExamplePullConsumer() {
	ctx := context.Background()
	b, err := mq.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if err := b.CreateTopic("Lines", &mq.TopicConfig{Queues: 1}); err != nil {
		log.Fatal(err)
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	for i := range 10 {
		if _, err := p.Send(ctx, &mq.Message{Topic: "Lines", Body: fmt.Append(nil, "line ", i)}); err != nil {
			log.Fatal(err)
		}
	}

	c, err := b.NewPullConsumer("Indexer", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("Lines", mq.All); err != nil {
		log.Fatal(err)
	}
	ms, err := c.Poll(ctx, 4)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Commit(ctx, ms...); err != nil {
		log.Fatal(err)
	}
	behind, _, err := b.Lag("Indexer")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(ms), "consumed,", behind, "to go")

	// Back to the second one, which is no longer to be committed.
	if err := c.Seek(mq.Queue{Topic: "Lines", ID: 0}, 1); err != nil {
		log.Fatal(err)
	}
	for m, err := range c.Messages(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s\n", m.Offset, m.Body)
		if m.Offset == 2 {
			break
		}
	}
	// Output:
	// 4 consumed, 6 to go
	// 1 line 1
	// 2 line 2
}
