package mq_test

import (
	"context"
	"fmt"
	"log"

	"github.com/pocketmq/mq"
)

// Messages are found by their keys and by their ids, consumed or not, for as
// long as they are stored.
func ExampleBroker_MessagesByKey() {
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
	var last mq.SendResult
	for _, tag := range []string{"CreateOrder", "PayOrder"} {
		last, err = p.Send(ctx, &mq.Message{Topic: "OrderTopic", Tag: tag, Keys: []string{"order-42", "user-7"}})
		if err != nil {
			log.Fatal(err)
		}
	}
	found, err := b.MessagesByKey("OrderTopic", "user-7", 64)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range found { // newest first
		fmt.Println(m.Tag, m.Keys)
	}
	id, err := mq.ParseID(last.ID.String()) // from a log file, say
	if err != nil {
		log.Fatal(err)
	}
	m, err := b.MessageByID(id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Tag)
	// Output:
	// PayOrder [order-42 user-7]
	// CreateOrder [order-42 user-7]
	// PayOrder
}
