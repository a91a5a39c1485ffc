package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/pocketmq/mq"
)

const (
	topic  = "BenchTopic"
	tag    = "bench" // messages have a tag, as most do; no keys, no properties
	group  = "BenchGroup"
	queues = 4
)

// distinctBodies is how many there are to send in turn: few enough to stay in
// the processor's cache, so that making them is nobody's cost.
const distinctBodies = 512

// bodies returns random ones, the same in every run.
func bodies(size int) [][]byte {
	random := rand.NewChaCha8([32]byte{1})
	all := make([][]byte, distinctBodies)
	for i := range all {
		all[i] = make([]byte, size)
		_, _ = random.Read(all[i]) // never fails
	}
	return all
}

// sumBody reads every byte of a body whose length is a multiple of 8: a
// consumer that does not look at what it gets would be no consumer.
func sumBody(body []byte) (sum uint64) {
	for ; len(body) >= 8; body = body[8:] {
		sum += binary.LittleEndian.Uint64(body)
	}
	return sum
}

// sumOf is what the bodies of n sends, taken in turn, sum up to.
func sumOf(all [][]byte, n int) (sum uint64) {
	for i := range n {
		sum += sumBody(all[i%len(all)])
	}
	return sum
}

var errWrongSum = errors.New("the bodies received are not those sent")

func checkSum(got, want uint64) error {
	if got != want {
		return fmt.Errorf("%w: sum %x, want %x", errWrongSum, got, want)
	}
	return nil
}

// toQueue is a producer that sends to one queue only.
func toQueue(broker *mq.Broker, id int) (*mq.Producer, error) {
	return broker.NewProducer(&mq.ProducerOptions{
		Selector: func(*mq.Message, int) mq.QueueID { return mq.QueueID(id) },
	})
}
