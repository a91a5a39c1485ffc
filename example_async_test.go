package mq_test

import (
	"context"
	"fmt"
	"log"
	"sync"

	"github.com/pocketmq/mq"
)

// SendAsync does not wait for the disk. Its callback comes once, when the
// message is as durable as its topic asks for.
func ExampleProducer_SendAsync() {
	b, err := mq.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	var left sync.WaitGroup
	left.Add(1)
	err = p.SendAsync(context.Background(), &mq.Message{Topic: "Clicks", Body: []byte("/home")},
		func(r mq.SendResult, err error) {
			defer left.Done()
			fmt.Println("stored at", r.Offset, err)
		})
	if err != nil {
		log.Fatal(err) // then the callback does not come
	}
	left.Wait()

	// Fire and forget: it fails rather than waits when the log has no room yet.
	if err := p.SendOneWay(&mq.Message{Topic: "Clicks", Body: []byte("/about")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(b.Stats().Sent, "sent")
	// Output:
	// stored at 0 <nil>
	// 2 sent
}
