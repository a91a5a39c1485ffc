package mq_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// noticed is how late a time-out may be noticed: some beats of the pulse.
const noticed = 5 * time.Millisecond

// told keeps what the hooks were called with.
type told struct {
	mu      sync.Mutex
	failed  []mq.FailedInfo
	overdue []mq.OverdueInfo
}

func (h *told) hooks() *mq.Hooks {
	return &mq.Hooks{
		Failed: func(info mq.FailedInfo) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.failed = append(h.failed, info)
		},
		Overdue: func(info mq.OverdueInfo) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.overdue = append(h.overdue, info)
		},
	}
}

func (h *told) both() ([]mq.FailedInfo, []mq.OverdueInfo) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.failed), slices.Clone(h.overdue)
}

// TestTimeoutWaitsForTheHandler: one that takes too long has its context
// cancelled and is counted and told of once; its message comes again when it has
// returned, not before, and in an ordered group what is behind it waits as well.
func TestTimeoutWaitsForTheHandler(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var h told
			b := mqtest.OpenMemory(t, &mq.Options{Durability: mq.Written, Hooks: h.hooks()})
			createTopic(t, b, "T", 1)
			const timeout, lingers = 100 * time.Millisecond, 5 * time.Second
			began := time.Now()
			var seen inbox
			var cancelled time.Duration
			c := push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
				if err := ctx.Err(); err != nil {
					panic(err) // of another delivery
				}
				_ = seen.handle(ctx, m)
				if string(m.Body) != "0" || m.Attempt > 1 {
					return nil
				}
				<-ctx.Done()
				cancelled = time.Since(began)
				if context.Cause(ctx) != mq.ErrTimeout {
					panic(context.Cause(ctx))
				}
				<-time.After(lingers)
				return ctx.Err()
			}, &mq.PushOptions{Timeout: timeout, Backoff: mq.Immediate, Ordered: ordered, Concurrency: 4})
			first := sendBodies(t, b, "T", 2)[0]
			pass(lingers)
			require.GreaterOrEqual(t, cancelled, timeout)
			require.LessOrEqual(t, cancelled, timeout+noticed)
			require.EqualValues(t, 1, b.Stats().Overdue)
			failed, overdue := h.both()
			require.Equal(t, []mq.OverdueInfo{{
				Group: "G", Member: c.Name(), ID: first.ID, Queue: mq.Queue{Topic: "T"}, Attempt: 1, Timeout: timeout,
			}}, overdue)
			require.Empty(t, failed)
			if ordered {
				require.Equal(t, []string{"0"}, seen.bodies())
			} else {
				require.Equal(t, []string{"0", "1"}, seen.bodies())
			}

			pass(time.Second)
			require.Zero(t, b.Stats().Overdue)
			failed, overdue = h.both()
			require.Len(t, overdue, 1)
			require.Len(t, failed, 1)
			require.ErrorIs(t, failed[0].Err, mq.ErrTimeout)
			require.ErrorIs(t, failed[0].Err, context.Canceled, "what it returned")
			if ordered {
				require.Equal(t, []string{"0", "0", "1"}, seen.bodies())
			} else {
				require.Equal(t, []string{"0", "1", "0"}, seen.bodies())
			}
			require.Zero(t, lag(t, b, "G"))
		})
	}
}

// TestTimeoutIsNoVerdict: what the handler returns after it decides.
func TestTimeoutIsNoVerdict(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		err      error
		attempts int
		dead     int64
	}{
		"consumed after all": {nil, 1, 0},
		"discarded":          {mq.Discard(nil), 1, 1},
		"again":              {mq.RetryAfter(time.Second), 2, 0},
	}
	for name, row := range rows {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			var in inbox
			push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
				_ = in.handle(ctx, m)
				if m.Attempt > 1 {
					return nil
				}
				<-ctx.Done()
				return row.err
			}, &mq.PushOptions{Timeout: time.Second})
			sendBodies(t, b, "T", 1)
			pass(time.Minute)
			require.Equal(t, row.attempts, in.len(), name)
			require.Equal(t, row.dead, b.Stats().Dead, name)
			require.Zero(t, lag(t, b, "G"), name)
			require.Zero(t, b.Stats().Overdue, name)
		})
	}
}

// TestTimeoutDefault: RocketMQ's; and none if it is negative.
func TestTimeoutDefault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		began := time.Now()
		var cancelled atomic.Int64
		c := push(t, b, "G", "T", func(ctx context.Context, _ *mq.Message) error {
			<-ctx.Done()
			cancelled.Store(int64(time.Since(began)))
			return nil
		}, nil)
		sendBodies(t, b, "T", 1)
		pass(15*time.Minute - time.Millisecond)
		require.Zero(t, cancelled.Load())
		pass(noticed)
		require.GreaterOrEqual(t, cancelled.Load(), int64(15*time.Minute))
		require.NoError(t, c.Close())

		push(t, b, "G", "T", func(ctx context.Context, _ *mq.Message) error {
			<-time.After(time.Minute)
			return ctx.Err()
		}, &mq.PushOptions{Timeout: -1})
		sendBodies(t, b, "T", 1)
		pass(2 * time.Minute)
		require.Zero(t, lag(t, b, "G"))
	})
}

// TestTimeoutMeetsTheSlowOnly: of handlers that take any time, in one batch and
// several workers at it, those are told that take too long, and no others.
func TestTimeoutMeetsTheSlowOnly(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const timeout = 50 * time.Millisecond
	takes := map[string]time.Duration{}
	for _, body := range bodiesTo(300) {
		takes[body] = time.Duration(random.Int64N(int64(2 * timeout)))
		if random.IntN(3) > 0 {
			takes[body] = 0
		}
	}
	for _, concurrency := range []int{1, 3, 20} {
		synctest.Test(t, func(t *testing.T) {
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 1)
			sendBodies(t, b, "T", len(takes))
			var wrong sync.Map
			push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
				began, body := time.Now(), string(m.Body)
				select {
				case <-time.After(takes[body]):
				case <-ctx.Done():
				}
				took := time.Since(began)
				if ctx.Err() != nil && took < timeout || ctx.Err() == nil && took > timeout+noticed {
					wrong.Store(body, took)
				}
				return nil
			}, &mq.PushOptions{Timeout: timeout, Concurrency: concurrency})
			pass(time.Minute)
			require.Zero(t, lag(t, b, "G"))
			wrong.Range(func(body, took any) bool {
				t.Errorf("message %v: %v after %v, with %d handlers", body, takes[body.(string)], took, concurrency)
				return true
			})
		})
	}
}

// TestTimeoutOfOneIsNotTheNexts: in real time, where the pulse cancels while the
// worker goes on to its next message.
func TestTimeoutOfOneIsNotTheNexts(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	var late, wrong atomic.Int64
	const timeout = 2 * time.Millisecond
	push(t, b, "G", "T", func(ctx context.Context, m *mq.Message) error {
		if ctx.Err() != nil {
			wrong.Add(1)
		}
		if m.Offset%16 == 0 {
			select {
			case <-ctx.Done():
				late.Add(1)
			case <-time.After(timeout + time.Duration(rand.Int64N(int64(2*time.Millisecond)))):
			}
		}
		return nil
	}, &mq.PushOptions{Timeout: timeout, Concurrency: 3})
	sendBodies(t, b, "T", 6000)
	consumed(t, b, "G")
	require.Zero(t, wrong.Load(), "begun with the context of another message")
	require.Positive(t, late.Load())
	require.Zero(t, b.Stats().Overdue)
}

// TestTimeoutAndClose: Close waits for a handler that heeds neither.
func TestTimeoutAndClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		returned := false
		c := push(t, b, "G", "T", func(ctx context.Context, _ *mq.Message) error {
			<-time.After(10 * time.Second)
			returned = true
			return errors.New("no")
		}, &mq.PushOptions{Timeout: time.Second})
		sendBodies(t, b, "T", 1)
		pass(5 * time.Second)
		require.EqualValues(t, 1, b.Stats().Overdue)
		require.NoError(t, c.Close())
		require.True(t, returned)
		require.Zero(t, b.Stats().Overdue)
		require.EqualValues(t, 1, lag(t, b, "G"), "it comes again when there is somebody for it")
	})
}
