package mq_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/pocketmq/mq"
)

// A store that is in use, by this process or another one, can be looked at.
func ExampleOpenReadOnly() {
	dir, err := os.MkdirTemp("", "pocketmq")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b, err := mq.Open(dir, nil) // the owner
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, body := range []string{"two teapots", "a kettle"} {
		if _, err := p.Send(context.Background(), &mq.Message{Topic: "OrderTopic", Body: []byte(body)}); err != nil {
			log.Fatal(err)
		}
	}

	s, err := mq.OpenReadOnly(dir, nil) // somebody else
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	for m, err := range s.Browse("OrderTopic", time.Time{}, time.Time{}, mq.All) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", m.Body)
	}
	// Output:
	// two teapots
	// a kettle
}
