package mq_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/pocketmq/mq"
)

// A program opens a store, one part of it sends, another one handles.
func Example() {
	dir, err := os.MkdirTemp("", "mq")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b, err := mq.Open(filepath.Join(dir, "data"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	handled := make(chan struct{})
	c, err := b.NewPushConsumer("StockGroup", func(_ context.Context, m *mq.Message) error {
		fmt.Printf("%s %s: %s\n", m.Topic, m.Tag, m.Body)
		close(handled)
		return nil // an error or a panic: it comes again later
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("OrderTopic", mq.All); err != nil {
		log.Fatal(err)
	}

	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	m := &mq.Message{Topic: "OrderTopic", Tag: "CreateOrder", Body: []byte("order 42")}
	if _, err := p.Send(context.Background(), m); err != nil {
		log.Fatal(err)
	}
	<-handled
	// Output: OrderTopic CreateOrder: order 42
}
