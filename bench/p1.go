package main

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pocketmq/mq"
)

// P1: end to end. Four producers, a queue each, SendAsync of 128 B to a Written
// topic; one push consumer group. The clock stops when everything is
// acknowledged. Against it what a Go program would use otherwise: four channels
// with a producer and a consumer each, and a message of its own for every send,
// since the sender's buffer is its own. Both sides read every body.
const (
	p1Body   = 128
	p1Target = 1.2

	channelDepth = 4096

	// p1Frame is what a message takes in files: a frame of 184 B, 20 B in the
	// index, its share of an acknowledgement.
	p1Frame = 208
)

func measureEndToEnd(ctx context.Context, b *bench) ([]result, error) {
	// 2.4 million messages are 0.5 GB: long enough to leave the beginning
	// behind, short enough to stay below the limit of dirty pages (a tenth of
	// the memory), beyond which the disk would be measured.
	flow := newFlow(b.count(2_400_000))
	n := flow.each * queues
	reference := timed{name: "channels", run: flow.throughChannels}
	engine := timed{name: "queue", writes: int64(n) * p1Frame, run: func(ctx context.Context) (time.Duration, error) {
		return b.inStore(func(broker *mq.Broker) (time.Duration, error) {
			return flow.throughQueue(ctx, broker)
		})
	}}
	p, err := b.measurePairs(ctx, reference, engine)
	if err != nil {
		return nil, err
	}
	what := "4 producers to push group with acks, 128 B, Written, against 4 channels"
	return []result{p.throughput(what, n, p1Target)}, nil
}

// flow is the load: n messages, an equal share for each producer.
type flow struct {
	each   int
	bodies [][]byte
	want   uint64 // sum of all bodies
}

func newFlow(n int) *flow {
	f := &flow{each: n / queues, bodies: bodies(p1Body)}
	f.want = queues * sumOf(f.bodies, f.each)
	return f
}

// sums has one sum per queue, each on a cache line of its own.
type sums [queues]struct {
	atomic.Uint64
	_ [56]byte
}

func (s *sums) total() (total uint64) {
	for i := range s {
		total += s[i].Load()
	}
	return total
}

func (f *flow) throughQueue(ctx context.Context, broker *mq.Broker) (time.Duration, error) {
	var received sums
	handler := func(_ context.Context, m *mq.Message) error {
		received[m.Queue].Add(sumBody(m.Body))
		return nil
	}
	c, err := broker.NewPushConsumer(group, handler, &mq.PushOptions{Concurrency: queues})
	if err != nil {
		return 0, err
	}
	if err := c.Subscribe(topic, mq.All); err != nil {
		return 0, err
	}
	began := time.Now()
	var producers errgroup.Group
	for id := range queues {
		producers.Go(func() error { return f.runProducer(ctx, broker, id) })
	}
	if err := producers.Wait(); err != nil {
		return 0, err
	}
	if err := drained(ctx, broker, group); err != nil {
		return 0, err
	}
	return time.Since(began), checkSum(received.total(), f.want)
}

func (f *flow) runProducer(ctx context.Context, broker *mq.Broker, id int) error {
	p, err := toQueue(broker, id)
	if err != nil {
		return err
	}
	m := &mq.Message{Topic: topic, Tag: tag}
	for i := range f.each {
		m.Body = f.bodies[i%distinctBodies]
		if err := p.SendAsync(ctx, m, nil); err != nil {
			return err
		}
	}
	return nil
}

func (f *flow) throughChannels(context.Context) (time.Duration, error) {
	var received sums
	began := time.Now()
	var all sync.WaitGroup
	for id := range queues {
		channel := make(chan *mq.Message, channelDepth)
		all.Go(func() {
			for i := range f.each {
				channel <- &mq.Message{Topic: topic, Tag: tag, Body: bytes.Clone(f.bodies[i%distinctBodies])}
			}
			close(channel)
		})
		all.Go(func() {
			var sum uint64
			for m := range channel {
				sum += sumBody(m.Body)
			}
			received[id].Add(sum)
		})
	}
	all.Wait()
	return time.Since(began), checkSum(received.total(), f.want)
}
