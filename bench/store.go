package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pocketmq/mq"
)

// warm writes and deletes a file of n bytes. A page-cache page costs up to ten
// times as much when the hypervisor has to find it first, and pages that were
// freed go back to it within seconds: without this the first to run pays for
// the memory of those behind it.
func (b *bench) warm(n int64) (err error) {
	if n == 0 {
		return nil
	}
	name := filepath.Join(b.dir, "warm")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	chunk := make([]byte, 1<<20)
	for written := int64(0); written < n; written += int64(len(chunk)) {
		if _, err := f.Write(chunk); err != nil {
			return fmt.Errorf("warm up %d bytes: %w", n, err)
		}
	}
	return nil
}

// inStore runs fn in a fresh store. Afterwards the store is unmapped, deleted
// and that synced, so that the next run does not pay for it. Closing is not
// part of what fn times.
func (b *bench) inStore(fn func(*mq.Broker) (time.Duration, error)) (took time.Duration, err error) {
	dir := filepath.Join(b.dir, "store")
	defer func() { err = errors.Join(err, discard(dir)) }()
	broker, err := mq.Open(dir, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, broker.Close()) }()
	if err := broker.CreateTopic(topic, &mq.TopicConfig{Queues: queues, Durability: mq.Written}); err != nil {
		return 0, err
	}
	return fn(broker)
}

// discard deletes a file or a directory and has the disk know about it.
func discard(path string) error {
	err := os.RemoveAll(path)
	syncDisks()
	return err
}

// drained waits until the group has acknowledged all that was sent.
func drained(ctx context.Context, broker *mq.Broker, group string) error {
	// Half a millisecond is a five-hundredth of the shortest run, and seldom
	// enough that asking costs the consumers nothing.
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		lag, _, err := broker.Lag(group)
		if err != nil || lag == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
