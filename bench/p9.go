package main

import (
	"context"
	"runtime"
	"time"

	"github.com/pocketmq/mq"
)

// P9: allocations per message that has a tag, no keys and no properties. For
// sending: one goroutine that sends. For consuming, with batches flowing: a push
// consumer that works off this backlog, and one under the load of P1, sending
// included. Everything the process allocates meanwhile is counted, whoever does
// it.
const (
	p9Body = 128

	// Zero, as testing.AllocsPerRun would round it, but finer: the index grows
	// by a chunk per 1,024 messages and the log by a segment per some hundred
	// thousand, which is a few thousandths of an allocation.
	p9SendTarget    = 0.01
	p9ConsumeTarget = 0.1
)

func measureAllocations(ctx context.Context, b *bench) ([]result, error) {
	n := b.count(2_000_000)
	b.progress.show("sending and consuming %d messages", n)
	var send, backlog, flowing float64
	_, err := b.inStore(func(broker *mq.Broker) (_ time.Duration, err error) {
		send, backlog, err = sendThenConsume(ctx, broker, n)
		return 0, err
	})
	if err != nil {
		return nil, err
	}
	load := newFlow(n)
	_, err = b.inStore(func(broker *mq.Broker) (time.Duration, error) {
		before := mallocs()
		took, err := load.throughQueue(ctx, broker)
		flowing = perEach(before, n)
		return took, err
	})
	if err != nil {
		return nil, err
	}
	return []result{
		perMessage("Send, 128 B and a tag, Written", send, p9SendTarget),
		perMessage("push consumer, from a backlog", backlog, p9ConsumeTarget),
		perMessage("push consumer and senders, as in P1", flowing, p9ConsumeTarget),
	}, nil
}

func sendThenConsume(ctx context.Context, broker *mq.Broker, n int) (send, consume float64, err error) {
	// What is made once, at the first message, is not per message.
	if _, err := sendAll(ctx, broker, 1, p9Body); err != nil {
		return 0, 0, err
	}
	before := mallocs()
	if _, err := sendAll(ctx, broker, n, p9Body); err != nil {
		return 0, 0, err
	}
	send = perEach(before+distinctBodies, n) // sendAll makes its bodies
	before = mallocs()
	err = consumeAll(ctx, broker)
	return send, perEach(before, n), err
}

// perEach is the allocations since before, by message.
func perEach(before uint64, n int) float64 {
	return float64(int64(mallocs()-before)) / float64(n)
}

func perMessage(what string, value, target float64) result {
	r := result{What: what, Unit: "allocations/message", Value: value, Target: target}
	r.judge()
	return r
}

// consumeAll works the backlog off with a new group.
func consumeAll(ctx context.Context, broker *mq.Broker) error {
	var received sums
	handler := func(_ context.Context, m *mq.Message) error {
		received[m.Queue].Add(sumBody(m.Body))
		return nil
	}
	c, err := broker.NewPushConsumer(group, handler, nil)
	if err != nil {
		return err
	}
	if err := c.Subscribe(topic, mq.All); err != nil {
		return err
	}
	return drained(ctx, broker, group)
}

// mallocs counts the heap objects ever allocated.
func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
