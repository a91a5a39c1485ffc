package mq_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/pocketmq/mq"
)

// A sender that does not know whether its message was stored sends it again.
func Example_dedup() {
	b, err := mq.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if err := b.CreateTopic("Payments", &mq.TopicConfig{Dedup: mq.DedupWindow{For: 10 * time.Minute}}); err != nil {
		log.Fatal(err)
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	m := &mq.Message{Topic: "Payments", DedupKey: "order 7", Body: []byte("9.90")}
	first, err := p.Send(context.Background(), m)
	if err != nil {
		log.Fatal(err)
	}
	again, err := p.Send(context.Background(), m)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(first.Duplicate, again.Duplicate, first.ID == again.ID)
	// Output: false true true
}
