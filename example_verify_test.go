package mq_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/pocketmq/mq"
)

// A disk has damaged a message. Verify says which, and Repair makes a store
// without it: everything else is where it was.
func ExampleVerify() {
	ctx := context.Background()
	parent, err := os.MkdirTemp("", "pocketmq")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(parent)
	dir, repaired := filepath.Join(parent, "data"), filepath.Join(parent, "data.new")

	b, err := mq.Open(dir, &mq.Options{DefaultQueues: 1})
	if err != nil {
		log.Fatal(err)
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, body := range []string{"first", "second", "third"} {
		if _, err := p.Send(ctx, &mq.Message{Topic: "OrderTopic", Body: []byte(body)}); err != nil {
			log.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		log.Fatal(err)
	}

	segment := filepath.Join(dir, "commitlog", "00000000000000000000")
	data, err := os.ReadFile(segment)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(segment, bytes.Replace(data, []byte("second"), []byte("sec*nd"), 1), 0o600); err != nil {
		log.Fatal(err)
	}

	report, err := mq.Verify(ctx, dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sound:", report.OK())
	for _, problem := range report.Problems {
		fmt.Println(problem.Kind, problem.File)
	}
	kept, err := mq.Repair(ctx, dir, repaired, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, lost := range kept.Lost {
		fmt.Printf("lost: %s:%d offsets %d to %d\n", lost.Topic, lost.Queue, lost.From, lost.To-1)
	}
	report, err = mq.Verify(ctx, repaired, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sound:", report.OK(), "messages:", report.Messages)
	// Output:
	// sound: false
	// damaged log commitlog/00000000000000000000
	// hole commitlog/00000000000000000000
	// lost: OrderTopic:0 offsets 1 to 1
	// sound: true messages: 2
}
