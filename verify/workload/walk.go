package workload

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/pocketmq/mq"
)

// patience bounds every call of a fixed workload: whatever fails below, a caller
// gets an answer.
const patience = 10 * time.Second

// walker does one thing after another, the same with the same seed, so that the
// N-th system call of a kind is about the same in every run. Whatever fails is
// reported and the next thing tried.
type walker struct {
	*worker
	*writer
	p    *mq.Producer
	c    *mq.PullConsumer
	sent []mq.SendResult // acknowledged, to be read again
}

func (w *worker) walk() {
	k := &walker{worker: w, writer: &writer{Rand: w.random(0), number: firstNumber(w.Life, 0)}}
	k.do("create S", func(context.Context) error { return w.create(syncedTopic) })
	k.do("create W", func(context.Context) error { return w.create(writtenTopic) })
	k.do("consumers", k.join)
	for i := range w.Steps {
		k.step(i)
	}
	k.do("read", k.readAgain)
	if err := w.b.Stats().Poisoned; err != nil {
		w.say("poisoned %s", oneLine(err))
	}
	if w.LeaveOpen {
		w.say("left")
		return
	}
	if k.do("close", func(context.Context) error { return w.b.Close() }) {
		w.say("closed")
	}
}

// do runs one thing with a time limit, and says what came of it.
func (k *walker) do(what string, f func(ctx context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		k.say("hung %s", what)
	case time.Since(began) > patience:
		k.say("hung %s for %v", what, time.Since(began))
	case err != nil:
		k.say("failed %s %s", what, oneLine(err))
	}
	return err == nil
}

func (k *walker) join(context.Context) (err error) {
	if k.p, err = k.b.NewProducer(nil); err != nil {
		return err
	}
	if k.c, err = k.b.NewPullConsumer(syncedGroup, &mq.PullOptions{AckDurability: mq.Synced}); err != nil {
		return err
	}
	return errors.Join(k.c.Subscribe(syncedTopic, mq.All), k.c.Subscribe(writtenTopic, mq.All))
}

func (k *walker) step(i int) {
	if k.p == nil {
		return
	}
	switch i % 8 {
	case 0, 1:
		k.do("send", k.sendOne(syncedTopic))
	case 2, 3:
		k.do("send", k.sendOne(writtenTopic))
	case 4:
		k.do("batch", k.batch)
	case 5:
		k.do("async", k.async)
	case 6:
		if k.c != nil {
			k.do("consume", k.consume)
		}
	case 7:
		if i%16 == 15 {
			k.do("sync", k.sync)
		} else if i == 23 {
			k.do("create late", func(context.Context) error { return k.create(lateName(k.Life)) })
		} else {
			k.do("large", k.large) // so that segments are sealed
		}
	}
}

func (k *walker) send(ctx context.Context, m *mq.Message) error {
	k.trying(m)
	r, err := k.p.Send(ctx, m)
	if err != nil {
		k.refused(err, m)
		return err
	}
	k.sent = append(k.sent, r)
	k.out.WriteString(acknowledged([]*mq.Message{m}, []mq.SendResult{r}))
	return nil
}

func (k *walker) sendOne(topic string) func(context.Context) error {
	return func(ctx context.Context) error { return k.send(ctx, k.message(topic)) }
}

func (k *walker) large(ctx context.Context) error {
	m := k.message(writtenTopic)
	m.Body = appendBody(nil, k.number, 400_000)
	return k.send(ctx, m)
}

func (k *walker) batch(ctx context.Context) error {
	ms := []*mq.Message{k.message(syncedTopic), k.message(writtenTopic)}
	k.trying(ms...)
	rs, err := k.p.SendBatch(ctx, ms)
	if err != nil {
		k.refused(err, ms...)
		return err
	}
	k.sent = append(k.sent, rs...)
	k.out.WriteString(acknowledged(ms, rs))
	return nil
}

func (k *walker) async(ctx context.Context) error {
	m := k.message(syncedTopic)
	answer := make(chan error, 1)
	k.trying(m)
	err := k.p.SendAsync(ctx, m, func(r mq.SendResult, err error) {
		if err == nil {
			k.out.WriteString(acknowledged([]*mq.Message{m}, []mq.SendResult{r}))
		}
		answer <- err
	})
	if err != nil {
		k.refused(err, m)
		return err
	}
	select {
	case err = <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// consume polls and commits. What cannot be read is no hang: it waits to be
// readable.
func (k *walker) consume(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	ms, err := k.poll(short, k.c, syncedGroup, 16)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("nothing to poll")
	}
	if err != nil {
		return err
	}
	return k.commit(ctx, k.c, syncedGroup, mq.Synced, ms)
}

func (k *walker) sync(ctx context.Context) error {
	k.say("sync %d", k.number)
	if err := k.b.Sync(ctx); err != nil {
		return err
	}
	k.say("synced %d", k.number)
	return nil
}

// readAgain: stored messages stay readable, whatever writing came to.
func (k *walker) readAgain(context.Context) error {
	for _, r := range k.sent {
		m, err := k.b.MessageByID(r.ID)
		if err != nil {
			k.say("unreadable %v %s", r.ID, oneLine(err))
			continue
		}
		if _, whole := readBody(m.Body); !whole || m.Offset != r.Offset {
			k.say("wrong %v", r.ID)
		}
	}
	return nil
}

// firstWord returns a line's first word and the rest.
func firstWord(line string) (word, rest string) {
	word, rest, _ = strings.Cut(line, " ")
	return word, rest
}
