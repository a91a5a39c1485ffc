package mq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/crashfs"
)

// simpleLife is a store that a simple consumer receives from, and that ends
// badly again and again.
type simpleLife struct {
	*testing.T
	rnd *rand.Rand
	dir string
	fs  *crashfs.FS
	b   *Broker
	p   *Producer
	c   *SimpleConsumer

	log    bytes.Buffer
	number int
	sent   map[string]*simpleMessage // by body
	policy [2]int                    // MaxAttempts that UpdateGroup set, and what it may have set since
}

// simpleMessage is what is known of a message that was sent.
type simpleMessage struct {
	least, most int // deliveries that count, at least and at most
	safe        int // of them before the last sync
	acked       bool
	ackedSafe   bool
	maybe       bool // its ack was not answered
}

// TestSimplePowerCuts: whatever kill or power cut comes at whatever point, every
// message is received until its ack counts, with the number of its delivery, and
// the group's policy is what UpdateGroup said. After a kill all that was answered
// counts; after a power cut what was synced.
func TestSimplePowerCuts(t *testing.T) {
	t.Parallel()
	histories := 40
	if testing.Short() {
		histories = 10
	}
	for range histories {
		seed := rand.Uint64()
		l := &simpleLife{
			T: t, rnd: rand.New(rand.NewPCG(seed, 0)), dir: filepath.Join(t.TempDir(), "store"),
			sent: map[string]*simpleMessage{},
		}
		l.fs = crashfs.New(crashfs.Options{Seed: seed})
		durableDir(t, l.fs, l.dir)
		for life := range 6 {
			l.live(life == 5)
			if t.Failed() {
				t.Fatalf("seed %d, life %d\n%s", seed, life, l.log.String())
			}
		}
	}
}

// live opens what was left, and works until something ends it; the last life
// receives everything.
func (l *simpleLife) live(last bool) {
	opts := (&Options{SegmentBytes: mib, SyncEvery: time.Hour, DefaultQueues: 2}).withDefaults(false)
	opts.Logger = slog.New(slog.NewTextHandler(&l.log, nil))
	l.b = newBroker(opts, l.fs, l.dir)
	require.NoError(l, l.b.open())
	var err error
	l.p, err = l.b.NewProducer(nil)
	require.NoError(l, err)
	l.c, err = l.b.NewSimpleConsumer("G", &SimpleOptions{MaxAttempts: -1})
	require.NoError(l, err)
	require.NoError(l, l.c.Subscribe("T", All))
	l.looked()
	if last {
		for l.receive(100) == nil {
		}
		for body, m := range l.sent {
			if m.least == 0 && !m.acked && !m.maybe {
				l.Errorf("message %s never came", body)
			}
		}
		require.NoError(l, l.b.Close())
		return
	}
	l.fs.CutAt(1 + l.rnd.Int64N(200))
	for err = l.step(); err == nil && !l.fs.Off(); {
		if err = l.step(); l.rnd.IntN(40) == 0 {
			break
		}
	}
	if err != nil && !l.fs.Off() {
		l.Errorf("failed without a reason: %v", err)
	}
	l.end()
}

// end is a kill, a power cut, or an orderly end before one of them.
func (l *simpleLife) end() {
	cut := l.fs.Off()
	if !cut && l.rnd.IntN(3) == 0 {
		l.fs.CutAt(0)
		require.NoError(l, l.b.Close())
		l.synced()
		l.fs = l.fs.Kill()
		return
	}
	var left *crashfs.FS
	l.b.log.Exclusive(func() { // no store may be under way
		if cut = cut || l.fs.Off() || l.rnd.IntN(2) == 0; cut {
			left = l.fs.Crash(l.rnd)
		} else {
			left = l.fs.Kill()
		}
	})
	_ = l.b.Close() // it cannot do what it wants to
	l.fs = left
	if !cut {
		return
	}
	for _, m := range l.sent {
		m.least = min(m.least, m.safe)
		m.maybe = m.maybe || m.acked && !m.ackedSafe
		m.acked = m.ackedSafe
	}
}

// synced notes that all that was answered survives from now on.
func (l *simpleLife) synced() {
	for _, m := range l.sent {
		m.safe, m.ackedSafe = m.least, m.acked
	}
}

// looked holds the group's policy against what was set.
func (l *simpleLife) looked() {
	info, err := l.b.Group("G")
	require.NoError(l, err)
	if got := info.Retry.MaxAttempts; got != l.policy[0] && got != l.policy[1] {
		l.Errorf("the policy says %d attempts, was set to %v", got, l.policy)
	}
	l.policy = [2]int{info.Retry.MaxAttempts, info.Retry.MaxAttempts}
}

func (l *simpleLife) step() error {
	ctx := context.Background()
	switch l.rnd.IntN(10) {
	case 0, 1, 2:
		l.number++
		body := fmt.Sprint("message ", l.number)
		_, err := l.p.Send(ctx, &Message{Topic: "T", Body: []byte(body)})
		l.sent[body] = &simpleMessage{maybe: err != nil}
		return err
	case 3:
		err := l.b.Sync(ctx)
		if err == nil {
			l.synced()
		}
		return err
	case 4:
		l.policy[1] = 100 + l.rnd.IntN(1000)
		err := l.b.UpdateGroup("G", GroupConfig{Retry: RetryPolicy{MaxAttempts: l.policy[1]}})
		if err == nil {
			l.policy[0] = l.policy[1]
		}
		return err
	}
	if err := l.receive(1 + l.rnd.IntN(3)); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// receive takes some messages and acknowledges, gives back or keeps each.
func (l *simpleLife) receive(most int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	ms, err := l.c.Receive(ctx, most, time.Hour)
	if err != nil {
		if l.fs.Off() { // it may have written down what it could not say
			for _, m := range l.sent {
				m.most++
			}
		}
		return err
	}
	for _, got := range ms {
		m := l.sent[string(got.Body)]
		switch {
		case m == nil:
			l.Errorf("%q was never sent", got.Body)
			return nil
		case m.acked:
			l.Errorf("%s comes again, and was acknowledged", got.Body)
		case got.Attempt <= m.least || got.Attempt > m.most+1:
			l.Errorf("%s is at attempt %d, after %d to %d deliveries", got.Body, got.Attempt, m.least, m.most)
		}
		m.least, m.most = got.Attempt, got.Attempt
	}
	for _, got := range ms {
		m := l.sent[string(got.Body)]
		switch l.rnd.IntN(3) {
		case 0:
			if err := l.c.Ack(context.Background(), got); err != nil {
				m.maybe = true
				return err
			}
			m.acked = true
		case 1:
			if err := l.c.Nack(context.Background(), got); err != nil {
				return err
			}
		}
	}
	return nil
}
