package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/pocketmq/mq"
)

// P3: one goroutine, Send of 128 B to a Written topic, which has returned when
// the message survives kill -9. Against it the cheapest other way to that
// promise: a bare write of as many bytes as the frame takes, appended to a file
// in the same directory.
const (
	p3Body   = 128
	p3Target = 0.2
)

func measureSend(ctx context.Context, b *bench) ([]result, error) {
	n := b.count(1_000_000)
	frame, err := b.frameSize(ctx, p3Body)
	if err != nil {
		return nil, err
	}
	bytes := int64(n) * frame
	reference := timed{name: "write", writes: bytes, run: func(context.Context) (time.Duration, error) {
		return b.writeFile(n, make([]byte, frame))
	}}
	engine := timed{name: "Send", writes: bytes, run: func(ctx context.Context) (time.Duration, error) {
		return b.inStore(func(broker *mq.Broker) (time.Duration, error) {
			return sendAll(ctx, broker, n, p3Body)
		})
	}}
	p, err := b.measurePairs(ctx, reference, engine)
	if err != nil {
		return nil, err
	}
	what := "Send by 1 goroutine, 128 B, Written, against a bare write"
	return []result{p.duration(what, n, p3Target)}, nil
}

// frameSize is what one message with a body of that size takes in the log.
func (b *bench) frameSize(ctx context.Context, body int) (frame int64, err error) {
	_, err = b.inStore(func(broker *mq.Broker) (time.Duration, error) {
		before := broker.Stats().Written
		_, err := sendAll(ctx, broker, 1, body)
		frame = broker.Stats().Written - before
		return 0, err
	})
	return frame, err
}

func sendAll(ctx context.Context, broker *mq.Broker, n, size int) (time.Duration, error) {
	p, err := broker.NewProducer(nil)
	if err != nil {
		return 0, err
	}
	all := bodies(size)
	m := &mq.Message{Topic: topic, Tag: tag}
	began := time.Now()
	for i := range n {
		m.Body = all[i%distinctBodies]
		if _, err := p.Send(ctx, m); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// writeFile appends data to a new file n times.
func (b *bench) writeFile(n int, data []byte) (took time.Duration, err error) {
	name := filepath.Join(b.dir, "reference")
	defer func() { err = errors.Join(err, discard(name)) }()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	began := time.Now()
	for range n {
		if _, err := f.Write(data); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
