package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

type kafka struct {
	seeds    []string
	producer *kgo.Client
}

func openKfake(syncWrites bool) func(context.Context, string) (broker, error) {
	return func(_ context.Context, dir string) (broker, error) {
		options := []kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SeedTopics(4, topic)}
		if syncWrites {
			options = append(options, kfake.SyncWrites())
		}
		c, err := kfake.NewCluster(options...)
		if err != nil {
			return nil, err
		}
		k := &kafka{seeds: c.ListenAddrs()}
		k.producer, err = kgo.NewClient(kgo.SeedBrokers(k.seeds...), kgo.DefaultProduceTopic(topic))
		return k, err
	}
}

func (k *kafka) send(ctx context.Context, body []byte) error {
	return k.producer.ProduceSync(ctx, &kgo.Record{Value: body}).FirstErr()
}

func (k *kafka) consume(ctx context.Context, acknowledge bool, got, acked func([][]byte)) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(k.seeds...), kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group),
		kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer c.Close()
	return take(ctx, c, !acknowledge, func(rs []*kgo.Record) error {
		got(values(rs))
		if !acknowledge {
			return nil
		}
		if err := c.CommitRecords(ctx, rs...); err != nil {
			return err
		}
		acked(values(rs))
		return nil
	})
}

func (k *kafka) all(ctx context.Context, visit func([]byte)) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(k.seeds...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer c.Close()
	return take(ctx, c, true, func(rs []*kgo.Record) error {
		for _, b := range values(rs) {
			visit(b)
		}
		return nil
	})
}

// take polls until the context ends, or until nothing comes any more.
func take(ctx context.Context, c *kgo.Client, toTheEnd bool, visit func([]*kgo.Record) error) error {
	idle := 0 * time.Second
	for {
		short, cancel := context.WithTimeout(ctx, quiet)
		fetches := c.PollFetches(short)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return e.Err
			}
		}
		rs := fetches.Records()
		if len(rs) == 0 {
			// Joining a group takes it a while.
			if idle += quiet; toTheEnd && idle >= 3*quiet {
				return nil
			}
			continue
		}
		idle = 0
		if err := visit(rs); err != nil {
			return err
		}
	}
}

func values(rs []*kgo.Record) [][]byte {
	bodies := make([][]byte, len(rs))
	for i, r := range rs {
		bodies[i] = r.Value
	}
	return bodies
}
