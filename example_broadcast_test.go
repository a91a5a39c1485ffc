package mq_test

import (
	"context"
	"fmt"
	"log"
	"sync"

	"github.com/pocketmq/mq"
)

// In a broadcasting group every member gets every message. Each keeps its own
// offsets, under the name of its instance.
func ExampleModel_broadcasting() {
	b, err := mq.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	var left sync.WaitGroup
	left.Add(2)
	for _, node := range []string{"cache-1", "cache-2"} {
		c, err := b.NewPushConsumer("CacheGroup", func(_ context.Context, m *mq.Message) error {
			fmt.Printf("%s forgets %s\n", node, m.Body)
			left.Done()
			return nil
		}, &mq.PushOptions{Model: mq.Broadcasting, Instance: node})
		if err != nil {
			log.Fatal(err)
		}
		if err := c.Subscribe("Invalidate", mq.All); err != nil {
			log.Fatal(err)
		}
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := p.Send(context.Background(), &mq.Message{Topic: "Invalidate", Body: []byte("user-7")}); err != nil {
		log.Fatal(err)
	}
	left.Wait()
	// Unordered output:
	// cache-1 forgets user-7
	// cache-2 forgets user-7
}
