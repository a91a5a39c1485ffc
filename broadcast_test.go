package mq_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

func broadcasting(instance string) *mq.PushOptions {
	return &mq.PushOptions{Model: mq.Broadcasting, Instance: instance}
}

func TestBroadcastingReachesEveryMember(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 4)
	one, two := newCrowd(), newCrowd()
	a := push(t, b, "G", "T", one.handle, broadcasting("a"))
	push(t, b, "G", "T", two.handle, broadcasting("b"))
	require.Equal(t, queuesOf("T", 0, 1, 2, 3), a.Assigned())
	sendBodies(t, b, "T", 300)
	consumed(t, b, "G")
	one.verify(t, 300)
	two.verify(t, 300)
}

// TestBroadcastingOffsetsAreDurable: by instance name, over members and
// processes; a new instance begins where its options say.
func TestBroadcastingOffsetsAreDurable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 10)
	join := func(b *mq.Broker, instance string) *mq.PullConsumer {
		return pull(t, b, "G", "T", &mq.PullOptions{Model: mq.Broadcasting, Instance: instance})
	}
	one := join(b, "a")
	poll(t, one, 4)
	require.NoError(t, one.Commit(t.Context()))
	two := join(b, "b")
	poll(t, two, 7)
	require.NoError(t, two.Commit(t.Context()))
	offsets, err := b.Offsets("G", "T")
	require.NoError(t, err)
	require.Len(t, offsets, 2)
	require.Equal(t, "a", offsets[0].Instance)
	require.Equal(t, mq.Offset(4), offsets[0].Committed)
	require.Equal(t, "b", offsets[1].Instance)
	require.Equal(t, int64(3), offsets[1].Lag())
	require.Equal(t, int64(9), lag(t, b, "G"))
	require.NoError(t, b.Close())

	b = mqtest.OpenDir(t, dir, written())
	require.Equal(t, bodiesTo(10)[7:], bodiesOf(poll(t, join(b, "b"), 3)))
	require.Equal(t, bodiesTo(10)[4:], bodiesOf(poll(t, join(b, "a"), 6)))
	require.Equal(t, bodiesTo(10), bodiesOf(poll(t, join(b, "c"), 10)))
}

// TestBroadcastingDoesNotRetry: as in RocketMQ. A failure is counted, reported,
// and over.
func TestBroadcastingDoesNotRetry(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var told, handled atomic.Int64
			b := mqtest.OpenMemory(t, &mq.Options{Durability: mq.Written, Hooks: &mq.Hooks{Failed: func(info mq.FailedInfo) {
				if info.Retry == -1 && info.Attempt == 1 && info.Instance == "a" {
					told.Add(1)
				}
			}}})
			createTopic(t, b, "T", 2)
			o := broadcasting("a")
			o.Ordered = ordered
			push(t, b, "G", "T", func(_ context.Context, m *mq.Message) error {
				handled.Add(1)
				if len(m.Body) == 1 {
					return errors.New("no")
				}
				panic("no")
			}, o)
			sendBodies(t, b, "T", 30)
			pass(time.Hour)
			require.Equal(t, int64(30), handled.Load())
			require.Equal(t, int64(30), told.Load())
			require.Equal(t, int64(30), b.Stats().Failed)
			require.Zero(t, lag(t, b, "G"))
		})
	}
}

func TestBroadcastingNeedsAnInstance(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, nil)
	_, err := b.NewPushConsumer("G", func(context.Context, *mq.Message) error { return nil }, broadcasting(""))
	require.ErrorIs(t, err, mq.ErrInvalidName)
	_, err = b.NewPullConsumer("G", &mq.PullOptions{Model: mq.Broadcasting})
	require.ErrorIs(t, err, mq.ErrInvalidName)
	require.Empty(t, b.Groups())
}

func TestBroadcastingGroupDeleted(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 3)
	for _, instance := range []string{"a", "b"} {
		c := pull(t, b, "G", "T", &mq.PullOptions{Model: mq.Broadcasting, Instance: instance})
		poll(t, c, 3)
		require.NoError(t, c.Commit(t.Context()))
		require.ErrorIs(t, b.DeleteGroup("G"), mq.ErrGroupActive)
		require.NoError(t, c.Close())
	}
	require.NoError(t, b.DeleteGroup("G"))
	require.Empty(t, b.Groups())
	c := pull(t, b, "G", "T", &mq.PullOptions{Model: mq.Broadcasting, Instance: "b"})
	require.Equal(t, bodiesTo(3), bodiesOf(poll(t, c, 3)))
}

// TestBroadcastingReset moves every instance.
func TestBroadcastingReset(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 5)
	one, two := newCrowd(), newCrowd()
	push(t, b, "G", "T", one.handle, broadcasting("a"))
	push(t, b, "G", "T", two.handle, broadcasting("b"))
	consumed(t, b, "G")
	require.NoError(t, b.ResetOffset("G", "T", mq.AtOffset(mq.Queue{Topic: "T"}, 3)))
	consumed(t, b, "G")
	for _, c := range []*crowd{one, two} {
		require.Equal(t, map[string]int{"0": 1, "1": 1, "2": 1, "3": 2, "4": 2}, c.times)
	}
}

// TestBroadcastingResetOfOne moves an instance, living or not, and no other; what
// it got to since is durable as before.
func TestBroadcastingResetOfOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 5)
	one, two := newCrowd(), newCrowd()
	push(t, b, "G", "T", one.handle, broadcasting("a"))
	c := push(t, b, "G", "T", two.handle, broadcasting("b"))
	consumed(t, b, "G")
	queue := mq.Queue{Topic: "T"}
	require.NoError(t, b.ResetInstance("G", "a", "T", mq.AtOffset(queue, 3)))
	require.NoError(t, c.Close())
	require.NoError(t, b.ResetInstance("G", "b", "T", mq.Earliest))
	mqtest.Eventually(t, func() bool { return lag(t, b, "G") == 5 }, "a is there again")
	require.Equal(t, map[string]int{"0": 1, "1": 1, "2": 1, "3": 2, "4": 2}, one.times)
	for name, want := range map[string]error{"": mq.ErrInvalidName, "a b": mq.ErrInvalidName, "c": mq.ErrGroupNotFound} {
		require.ErrorIs(t, b.ResetInstance("G", name, "T", mq.Earliest), want)
	}
	require.ErrorIs(t, b.ResetInstance("H", "a", "T", mq.Earliest), mq.ErrGroupNotFound)
	require.ErrorIs(t, b.ResetInstance("G", "a", "U", mq.Earliest), mq.ErrTopicNotFound)
	require.ErrorIs(t, b.ResetInstance("G", "a", "T", mq.AtOffset(queue, 6)), mq.ErrOffsetOutOfRange)
	require.NoError(t, b.Close())

	b = mqtest.OpenDir(t, dir, written())
	push(t, b, "G", "T", one.handle, broadcasting("a"))
	push(t, b, "G", "T", two.handle, broadcasting("b"))
	consumed(t, b, "G")
	require.Equal(t, map[string]int{"0": 1, "1": 1, "2": 1, "3": 2, "4": 2}, one.times)
	require.Equal(t, map[string]int{"0": 2, "1": 2, "2": 2, "3": 2, "4": 2}, two.times)
}
