package mq

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// Retries and dead letters: what was found to be wrong with them.

// TestPoisonInFullStore: one message that always fails does not keep a full store
// full. It is moved out of the oldest segment although senders have no room, and
// so is the topic made that it goes to.
func TestPoisonInFullStore(t *testing.T) {
	t.Parallel()
	poison := errors.New("poison")
	for name, verdict := range map[string]error{"dead letter": Discard(poison), "retry": poison} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1, Retention: Retention{MaxBytes: 4 * mib}})
				c, err := b.NewPushConsumer("G", func(_ context.Context, m *Message) error {
					if m.Tag == "poison" {
						return verdict
					}
					return nil
				}, &PushOptions{Concurrency: 1})
				require.NoError(t, err)
				require.NoError(t, c.Pause())
				require.NoError(t, c.Subscribe("T", All))
				p, err := b.NewProducer(nil)
				require.NoError(t, err)
				_, err = p.Send(t.Context(), &Message{Topic: "T", Tag: "poison", Body: make([]byte, 64*kib)})
				require.NoError(t, err)
				for _, size := range []int{64 * kib, 4 * kib, 256, 16} {
					for err = nil; err == nil; {
						_, err = p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, size)})
					}
					require.ErrorIs(t, err, ErrFull)
				}
				require.NoError(t, c.Resume())
				<-time.After(time.Minute)
				synctest.Wait()
				_, err = p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 64*kib)})
				require.NoError(t, err, "everything else is consumed")
				<-time.After(24 * time.Hour)
				require.EqualValues(t, 1, b.Stats().Dead)
				require.Zero(t, lagOf(t, b))
				require.NoError(t, b.Check(t.Context()))
				require.NoError(t, b.Close())
			})
		})
	}
}

// TestDeadLettersBesideRetention: of dead letters that retention drops while
// somebody goes through them, those that are left are found.
func TestDeadLettersBesideRetention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{
			Durability: Written, DefaultQueues: 1, SegmentBytes: mib,
			Retention: Retention{Age: time.Hour, DropUnconsumed: true, MaxBytes: -1},
		})
		c, err := b.NewPushConsumer("G", func(context.Context, *Message) error { return Discard(nil) }, &PushOptions{Concurrency: 1})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for i := range 200 {
			if i == 100 {
				<-time.After(50 * time.Minute)
			}
			_, err = p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 30*kib)})
			require.NoError(t, err)
		}
		synctest.Wait()
		n := 0
		for _, err := range b.DeadLetters("G") {
			if n++; n == 1 {
				<-time.After(20 * time.Minute)
			}
			require.NoError(t, err)
		}
		dead, err := b.Route(DeadLetterTopic("G"))
		require.NoError(t, err)
		require.Greater(t, dead[0].Start, Offset(maxBatch))
		require.Equal(t, maxBatch+int(dead[0].End-dead[0].Start), n, "the first were read before they were dropped")
		require.NoError(t, b.Close())
	})
}

// TestRetryIsNeverEarly: a message comes again after the time that it shall wait,
// and not in the millisecond in which that ends.
func TestRetryIsNeverEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		<-time.After(900 * time.Microsecond)
		var at []time.Time
		c, err := b.NewPushConsumer("G", func(context.Context, *Message) error {
			if at = append(at, time.Now()); len(at) == 1 {
				return RetryAfter(time.Millisecond)
			}
			return nil
		}, nil)
		require.NoError(t, err)
		sendNumbers(t, b, 0, 1)
		require.NoError(t, c.Subscribe("T", All))
		<-time.After(time.Second)
		require.Len(t, at, 2)
		require.GreaterOrEqual(t, at[1].Sub(at[0]), time.Millisecond)
		require.NoError(t, b.Close())
	})
}

// TestExponentialIsNeverNegative: a wait that no Duration can tell is as long as
// can be, or a message that fails often would be tried in a hot loop.
func TestExponentialIsNeverNegative(t *testing.T) {
	t.Parallel()
	const longest = time.Duration(math.MaxInt64)
	for _, attempt := range []int{64, 5000, math.MaxInt32} {
		require.Equal(t, longest, Exponential(time.Second, longest, 0)(attempt))
		require.Zero(t, Exponential(0, time.Hour, 0)(attempt))
		for range 20 {
			require.Positive(t, Exponential(time.Second, longest, 0.9)(attempt))
		}
	}
	require.Equal(t, 8*time.Second, Exponential(time.Second, time.Hour, 0)(4))
}

// TestDeadLettersLookedAt: the dead letters of a group stay as long as somebody
// looks at them more often than Retention.GroupExpiry, and new ones that long.
func TestDeadLettersLookedAt(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{
			Durability: Written, DefaultQueues: 1, SegmentBytes: mib,
			Retention: Retention{Age: day, GroupExpiry: 7 * day, MaxBytes: -1},
		})
		c, err := b.NewPushConsumer("G", func(context.Context, *Message) error { return Discard(nil) }, &PushOptions{Concurrency: 1})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		die := func() {
			for range 2 * maxBatch {
				_, err := p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 30*kib)})
				require.NoError(t, err)
			}
			synctest.Wait()
		}
		count := func() (n int) {
			for _, err := range b.DeadLetters("G") {
				require.NoError(t, err)
				n++
			}
			return n
		}
		die()
		for range 10 {
			<-time.After(3 * day)
			require.Equal(t, 2*maxBatch, count())
		}
		<-time.After(10 * day)
		require.Less(t, count(), maxBatch, "nobody looked")
		<-time.After(10 * day)
		die()
		<-time.After(5 * day)
		require.GreaterOrEqual(t, count(), 2*maxBatch, "new ones are not old")
		require.NoError(t, b.Close())
	})
}

// TestPolicyInFullStore: how often messages are tried can be changed when senders
// have no room, and with it what keeps the store full.
func TestPolicyInFullStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1, Retention: Retention{MaxBytes: 4 * mib}})
		subscribed(t, b, "G")
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		for _, size := range []int{64 * kib, 4 * kib, 256, 1} {
			for err = nil; err == nil; {
				_, err = p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, size)})
			}
			require.ErrorIs(t, err, ErrFull)
		}
		policy := RetryPolicy{MaxAttempts: 3, Delays: make([]time.Duration, 30)}
		require.NoError(t, b.UpdateGroup("G", GroupConfig{Retry: policy}))
		require.NoError(t, b.Close())
	})
}

// TestDeadTwice: a message that came again after a reset, and became a dead letter
// again, is purged or sent again as often as it is one, however often it is named.
func TestDeadTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		c, err := b.NewPushConsumer("G", func(context.Context, *Message) error { return Discard(nil) }, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		sendNumbers(t, b, 0, 2)
		synctest.Wait()
		require.NoError(t, b.ResetOffset("G", "T", Earliest))
		synctest.Wait()
		var ids []MessageID
		for m, err := range b.DeadLetters("G") {
			require.NoError(t, err)
			ids = append(ids, m.ID)
		}
		require.Len(t, ids, 4)
		n, err := b.PurgeDeadLetters("G", ids[0])
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.NoError(t, c.Close())
		n, err = b.ResendDeadLetters(t.Context(), "G", ids[1], ids[1], ids[1])
		require.NoError(t, err)
		require.Equal(t, 2, n)
		for range b.DeadLetters("G") {
			t.Fatal("there is one left")
		}
		require.NoError(t, b.Close())
	})
}

// TestBuriedLater: a dead letter that finds no room at first says, when it does, what
// its handler said, and nobody is told twice.
func TestBuriedLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		var told atomic.Int64
		b := openOn(t, fs, &Options{
			Durability: Written, DefaultQueues: 1, SegmentBytes: mib,
			Hooks: &Hooks{Failed: func(FailedInfo) { told.Add(1) }},
		})
		sendNumbers(t, b, 0, 1)
		subscribed(t, b, "Eater")
		fs.Fail(func(c vfs.Call) error {
			if c.Op == vfs.OpCreate {
				return syscall.ENOSPC
			}
			return nil
		})
		handled := make(chan struct{})
		c, err := b.NewPushConsumer("G", func(ctx context.Context, m *Message) error {
			if m.Offset > 0 {
				return nil
			}
			<-handled
			return errors.New("mine")
		}, &PushOptions{MaxAttempts: 1})
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		synctest.Wait()
		eat(t, b)
		close(handled)
		<-time.After(time.Minute)
		require.Zero(t, b.Stats().Dead)
		fs.Fail(nil)
		<-time.After(time.Minute)
		var dead []*Message
		for m, err := range b.DeadLetters("G") {
			require.NoError(t, err)
			dead = append(dead, m)
		}
		require.Len(t, dead, 1)
		require.Equal(t, &Origin{Topic: "T", Attempts: 1, LastError: "mine"}, dead[0].Origin)
		require.Equal(t, int64(1), told.Load())
		require.NoError(t, b.Close())
	})
}

// TestRepairRests: Repair delivers nothing of what has become due. It leaves the
// deliveries of its new store at rest, and those then wait.
func TestRepairRests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker((&Options{Durability: Written, DefaultQueues: 1}).withDefaults(true), newTestFS(), "")
		b.timer.resting = true
		require.NoError(t, b.open())
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		_, err = p.Send(t.Context(), &Message{Topic: "T", Delay: time.Minute})
		require.NoError(t, err)
		<-time.After(time.Hour)
		require.Equal(t, int64(1), b.Stats().Waiting)
		require.NoError(t, b.Close())

		dir := filepath.Join(t.TempDir(), "store")
		store, err := Open(dir, nil)
		require.NoError(t, err)
		require.NoError(t, store.Close())
		r, err := newRepairer(t.Context(), vfs.OS(), dir, dir+"-repaired", nil)
		require.NoError(t, err)
		require.True(t, r.to.timer.resting)
	})
}
