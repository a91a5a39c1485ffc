// Command hello is the quick start of the README: it sends one message, and
// consumes it.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/pocketmq/mq"
)

func main() {
	b := must(mq.Open("data", nil)) // a folder that belongs to this process while it is open
	defer b.Close()

	done := make(chan struct{})
	c := must(b.NewPushConsumer("StockGroup", func(ctx context.Context, m *mq.Message) error {
		fmt.Printf("%s %s: %s\n", m.Topic, m.Tag, m.Body)
		close(done)
		return nil // consumed; after an error the message comes again, later
	}, nil))
	check(c.Subscribe("OrderTopic", mq.Tags("CreateOrder")))

	p := must(b.NewProducer(nil))
	must(p.Send(context.Background(), &mq.Message{ // on the disk when it returns
		Topic: "OrderTopic", Tag: "CreateOrder", Keys: []string{"order-42"}, Body: []byte("two teapots"),
	}))
	<-done
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
