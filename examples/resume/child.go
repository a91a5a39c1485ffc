package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/pocketmq/mq"
)

const (
	topic = "Steps"
	group = "Resumer"
)

// childFlag tells the program that it is the child.
const childFlag = "-child"

type childOptions struct {
	child bool
	dir   string
	round int
	life  time.Duration
}

// run is the child: it sends and consumes at the same time until it dies. With
// no life it consumes what is there and ends.
func (c *childOptions) run(ctx context.Context, report io.Writer) (err error) {
	// Every other child may die while it opens the store, recovers it even.
	early := c.round%2 == 1
	if c.life > 0 && early {
		time.AfterFunc(c.life, die)
	}
	b, err := mq.Open(c.dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	// Written is all it takes: the bytes are in the page cache when Send
	// returns, and kill -9 does not take them from there. Only a power cut does.
	err = b.CreateTopic(topic, &mq.TopicConfig{Queues: 4, Durability: mq.Written})
	if err != nil && !errors.Is(err, mq.ErrTopicExists) {
		return err
	}
	r := &reporter{out: report}
	recovery := b.Recovery()
	if err := r.opened(recovery.Clean, recovery.Replayed); err != nil {
		return err
	}
	if c.life == 0 {
		return c.consume(ctx, b, r)
	}
	if !early {
		time.AfterFunc(c.life, die)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var sendErr, consumeErr error
	var done sync.WaitGroup
	done.Go(func() { sendErr = c.send(ctx, b, r); cancel() })
	done.Go(func() { consumeErr = c.consume(ctx, b, r); cancel() })
	done.Wait()
	return errors.Join(sendErr, consumeErr)
}

// die is kill -9 from within: no deferred call, no flush, no goodbye.
func die() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err) // the parent sees the text and gives up
	}
}

// roundBits leaves room for a round's messages below its number, so that no
// number is given to two messages, whatever a killed round had come to.
const roundBits = 40

func (c *childOptions) send(ctx context.Context, b *mq.Broker, r *reporter) error {
	p, err := b.NewProducer(nil)
	if err != nil {
		return err
	}
	for number := uint64(c.round) << roundBits; ; number++ {
		m := &mq.Message{Topic: topic, Body: binary.LittleEndian.AppendUint64(nil, number)}
		if _, err := p.Send(ctx, m); err != nil {
			return err
		}
		if err := r.report(sentStep, number); err != nil {
			return err
		}
	}
}

// consume pulls and commits. With a life it goes on for ever, without one until
// nothing is left.
func (c *childOptions) consume(ctx context.Context, b *mq.Broker, r *reporter) error {
	pc, err := b.NewPullConsumer(group, nil)
	if err != nil {
		return err
	}
	if err := pc.Subscribe(topic, mq.All); err != nil {
		return err
	}
	for {
		if c.life == 0 {
			lag, _, err := b.Lag(group)
			if err != nil || lag == 0 {
				return err
			}
		}
		ms, err := pc.Poll(ctx, 32)
		if err != nil {
			return err
		}
		numbers := make([]uint64, len(ms))
		for i, m := range ms {
			if len(m.Body) != 8 {
				return fmt.Errorf("message %v has a body of %d bytes", m.ID, len(m.Body))
			}
			numbers[i] = binary.LittleEndian.Uint64(m.Body)
		}
		if err := r.report(deliveredStep, numbers...); err != nil {
			return err
		}
		if err := pc.Commit(ctx, ms...); err != nil {
			return err
		}
		if err := r.report(committedStep, numbers...); err != nil {
			return err
		}
	}
}

// reporter writes steps to the pipe, each in one write: a kill leaves whole
// lines and at most one torn one behind. It keeps no buffer: what is in a
// buffer dies with the process, and was never said.
type reporter struct {
	mu  sync.Mutex // keeps lines apart
	out io.Writer
	buf []byte
}

func (r *reporter) opened(clean bool, replayed int64) error {
	state := uint64(0)
	if clean {
		state = 1
	}
	return r.report(openedStep, state, uint64(replayed))
}

func (r *reporter) report(s step, numbers ...uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = appendLine(r.buf[:0], s, numbers)
	_, err := r.out.Write(r.buf)
	return err
}
