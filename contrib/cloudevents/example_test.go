package pocketmq_test

import (
	"context"
	"fmt"
	"log"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"github.com/pocketmq/mq"
	pocketmq "github.com/pocketmq/mq/contrib/cloudevents"
)

// Example sends and receives an event with the SDK's client.
func Example() {
	b, err := mq.OpenMemory(nil) // or mq.Open("data", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	sender, err := pocketmq.NewSender(b, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	out, err := cloudevents.NewClient(sender, cloudevents.WithTimeNow(), cloudevents.WithUUIDs())
	if err != nil {
		log.Fatal(err)
	}
	e := cloudevents.NewEvent()
	e.SetType("com.example.order.placed")
	e.SetSource("/shop")
	e.SetExtension("partitionkey", "customer-7") // becomes the sharding key
	if err := e.SetData(cloudevents.ApplicationJSON, map[string]string{"item": "teapot"}); err != nil {
		log.Fatal(err)
	}
	if result := out.Send(context.Background(), e); !cloudevents.IsACK(result) {
		log.Fatal(result) // nil is an ACK: it is stored
	}

	receiver, err := pocketmq.NewReceiver(b, "billing", "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer receiver.Close(context.Background())
	in, err := cloudevents.NewClient(receiver)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = in.StartReceiver(ctx, func(e cloudevents.Event) error {
		fmt.Printf("%s from %s: %s\n", e.Type(), e.Source(), e.Data())
		cancel()
		return nil // an ACK; an error makes it come again
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: com.example.order.placed from /shop: {"item":"teapot"}
}
