package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

type jetStream struct{ js jetstream.JetStream }

func openJetStream(syncAlways bool) func(context.Context, string) (broker, error) {
	return func(ctx context.Context, dir string) (broker, error) {
		s, err := server.NewServer(&server.Options{
			JetStream: true, StoreDir: dir, DontListen: true, NoLog: true, NoSigs: true, SyncAlways: syncAlways,
		})
		if err != nil {
			return nil, err
		}
		s.Start()
		if !s.ReadyForConnections(30 * time.Second) {
			return nil, errors.New("the server does not become ready")
		}
		c, err := nats.Connect("", nats.InProcessServer(s))
		if err != nil {
			return nil, err
		}
		js, err := jetstream.New(c)
		if err != nil {
			return nil, err
		}
		// It is there already unless it was lost.
		_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: topic, Subjects: []string{topic}, Storage: jetstream.FileStorage})
		return &jetStream{js}, err
	}
}

func (j *jetStream) send(ctx context.Context, body []byte) error {
	_, err := j.js.Publish(ctx, topic, body)
	return err
}

func (j *jetStream) consume(ctx context.Context, acknowledge bool, got, acked func([][]byte)) error {
	c, err := j.js.CreateOrUpdateConsumer(ctx, topic, jetstream.ConsumerConfig{
		Durable: group, AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour, MaxAckPending: -1,
	})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		batch, err := c.Fetch(32, jetstream.FetchMaxWait(quiet))
		if err != nil {
			return err
		}
		n := 0
		for m := range batch.Messages() {
			n++
			got([][]byte{m.Data()})
			if !acknowledge {
				continue
			}
			if err := m.DoubleAck(ctx); err != nil {
				return err
			}
			acked([][]byte{m.Data()})
		}
		if n == 0 && !acknowledge {
			return nil
		}
	}
	return ctx.Err()
}

func (j *jetStream) all(ctx context.Context, visit func([]byte)) error {
	stream, err := j.js.Stream(ctx, topic)
	if err != nil {
		return err
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return err
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && seq > 0; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("message %d: %w", seq, err)
		}
		visit(m.Data)
	}
	return nil
}
