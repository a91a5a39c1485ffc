package workload

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/pocketmq/mq"
)

// fill is what happens on a disk that is too small: send until it is full; then
// read, acknowledge, reset and delete; then, once Ballast is gone, send again.
func (w *worker) fill() {
	k := &walker{worker: w, writer: &writer{Rand: w.random(0), number: firstNumber(w.Life, 0)}}
	k.do("join", func(ctx context.Context) error {
		for _, name := range []string{syncedTopic, writtenTopic} {
			if _, err := w.b.Topic(name); err == nil {
				continue
			}
			if err := w.create(name); err != nil {
				return err
			}
		}
		return errors.Join(k.join(ctx), k.aside(ctx, func() error { return nil }))
	})
	if k.p == nil {
		return
	}
	k.do("fill", k.sendUntilFull)
	w.say("full")
	k.do("read", k.readAgain)
	k.do("drain", k.drainFull)
	k.do("sync", func(ctx context.Context) error { return w.b.Sync(ctx) })
	k.do("reset and delete", k.asideEnds)
	if w.Ballast == "" {
		w.say("left")
		die() // with a full disk
	}
	if err := os.Remove(w.Ballast); err != nil {
		w.give("making room", err)
	}
	k.do("send again", k.sendAgain)
	if k.do("close", func(context.Context) error { return w.b.Close() }) {
		w.say("closed")
	}
}

// sendUntilFull sends until nothing more goes in. Only ErrDiskFull may say so.
func (k *walker) sendUntilFull(ctx context.Context) error {
	topics := []string{syncedTopic, writtenTopic}
	for i, refused := 0, 0; refused < 20; i++ {
		m := k.message(topics[i%2])
		m.Body = appendBody(nil, k.number, 1+k.IntN(20_000))
		err := k.send(ctx, m)
		switch {
		case errors.Is(err, mq.ErrDiskFull):
			refused++
		case err != nil:
			return err
		}
	}
	return nil
}

// drainFull consumes everything with acknowledgements that wait for the disk.
func (k *walker) drainFull(ctx context.Context) error {
	for {
		lag, _, err := k.b.Lag(syncedGroup)
		if err != nil || lag == 0 {
			return err
		}
		if err := k.consume(ctx); err != nil {
			return err
		}
	}
}

const asideGroup = "aside"

// aside joins a group of its own for a moment.
func (k *walker) aside(ctx context.Context, then func() error) error {
	c, err := k.b.NewPullConsumer(asideGroup, nil)
	if err != nil {
		return err
	}
	if err := c.Subscribe(syncedTopic, mq.All); err != nil {
		return errors.Join(err, c.Close())
	}
	if k.sent != nil {
		ms, err := c.Poll(ctx, 16)
		if err == nil {
			err = c.Commit(ctx, ms...)
		}
		if err != nil {
			return errors.Join(err, c.Close())
		}
	}
	return errors.Join(c.Close(), then())
}

// asideEnds moves that group, and in the second life deletes it, with the disk
// full.
func (k *walker) asideEnds(ctx context.Context) error {
	return k.aside(ctx, func() error {
		err := k.b.ResetOffset(asideGroup, syncedTopic, mq.Earliest)
		if k.Ballast != "" {
			err = errors.Join(err, k.b.DeleteGroup(asideGroup))
		}
		return err
	})
}

// sendAgain: there is room, and no need to open the store again.
func (k *walker) sendAgain(ctx context.Context) error {
	for {
		err := k.send(ctx, k.message(syncedTopic))
		if err == nil {
			k.say("room")
			return nil
		}
		if !errors.Is(err, mq.ErrDiskFull) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// die is kill -9.
func die() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {}
}
