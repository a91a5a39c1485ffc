package mq_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// TestCopyOffsets: the other group goes on exactly where this one is, in every
// queue, with what is consumed ahead, also after a restart.
func TestCopyOffsets(t *testing.T) {
	t.Parallel()
	for _, alive := range []bool{true, false} {
		t.Run(fmt.Sprint("members online: ", alive), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := mqtest.OpenDir(t, dir, written())
			createTopic(t, b, "T", 2)
			sendBodies(t, b, "T", 20)
			from := pull(t, b, "From", "T", nil)
			for _, m := range poll(t, from, 20) {
				if m.Offset < 3 || m.Offset%2 == int64ToOffset(m.Queue) {
					require.NoError(t, from.Commit(t.Context(), m))
				}
			}
			var to *mq.PullConsumer
			var stale []*mq.Message
			if alive {
				to = pull(t, b, "To", "T", nil)
				stale = poll(t, to, 20)
				require.NoError(t, to.Commit(t.Context(), stale[:10]...))
			}
			require.NoError(t, b.CopyOffsets("From", "To", "T"))
			same := func() {
				t.Helper()
				want, err := b.Offsets("From", "T")
				require.NoError(t, err)
				got, err := b.Offsets("To", "T")
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
			same()
			if alive {
				require.ErrorIs(t, to.Commit(t.Context(), stale[10:]...), mq.ErrStale)
			} else {
				to = pull(t, b, "To", "T", nil)
			}
			same()
			want := int(lag(t, b, "From"))
			require.NotZero(t, want)
			for _, m := range poll(t, to, want) {
				require.True(t, m.Offset >= 3 && m.Offset%2 != int64ToOffset(m.Queue), "%v %d was consumed by the other", m.Queue, m.Offset)
			}
			nothingMore(t, to)
			require.Equal(t, int64(want), lag(t, b, "From"), "the other one stays where it is")
			require.NoError(t, b.Close())
			b = mqtest.OpenDir(t, dir, written())
			same()
			require.NoError(t, b.Close())
			loseJournal(t, dir)
			b = mqtest.OpenDir(t, dir, written())
			same()
		})
	}
}

func int64ToOffset(q mq.QueueID) mq.Offset { return mq.Offset(q % 2) }

// TestCopyOffsetsOfBroadcasting: members with offsets of their own are all moved.
func TestCopyOffsetsOfBroadcasting(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 10)
	from := pull(t, b, "From", "T", nil)
	require.NoError(t, from.Commit(t.Context(), poll(t, from, 4)...))
	for _, instance := range []string{"one", "two"} {
		c := pull(t, b, "Cast", "T", &mq.PullOptions{Model: mq.Broadcasting, Instance: instance})
		poll(t, c, 10)
	}
	require.NoError(t, b.CopyOffsets("From", "Cast", "T"))
	offsets, err := b.Offsets("Cast", "T")
	require.NoError(t, err)
	require.Len(t, offsets, 2)
	require.Equal(t, []mq.Offset{4, 4}, []mq.Offset{offsets[0].Committed, offsets[1].Committed})
	require.ErrorIs(t, b.CopyOffsets("Cast", "From", "T"), mq.ErrGroupKind)
}

// TestCopyOffsetsBadly changes nothing, and makes no group.
func TestCopyOffsetsBadly(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	createTopic(t, b, "U", 1)
	sendBodies(t, b, "T", 5)
	c := pull(t, b, "G", "T", nil)
	ms := poll(t, c, 5)
	rows := []struct {
		from, to, topic string
		want            error
	}{
		{"None", "New", "T", mq.ErrGroupNotFound},
		{"", "New", "T", mq.ErrGroupNotFound},
		{"G", "New", "None", mq.ErrTopicNotFound},
		{"G", "New", "U", mq.ErrNotAssigned},
		{"G", "G", "T", mq.ErrInvalidArgument},
		{"G", "a b", "T", mq.ErrInvalidName},
		{"G", "", "T", mq.ErrInvalidName},
		{"G", "DEFAULT_CONSUMER", "T", mq.ErrInvalidName},
	}
	unchanged(t, b, func() {
		for _, row := range rows {
			require.ErrorIs(t, b.CopyOffsets(row.from, row.to, row.topic), row.want, "%+v", row)
		}
	})
	require.NoError(t, c.Commit(t.Context(), ms...))
}

// TestResetWhileHandling: what a handler has is finished, and its acknowledgement
// means nothing after a reset, in whatever direction; what the new offset says
// comes.
func TestResetWhileHandling(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		to   mq.Whence
		want []string // after the reset
		at   mq.Offset
	}{
		"back":    {mq.Earliest, bodiesTo(6), 6},
		"forward": {mq.AtOffset(mq.Queue{Topic: "T"}, 5), []string{"5"}, 6},
		"latest":  {mq.Latest, []string{}, 6},
		"by time": {mq.At(time.Unix(0, 0)), bodiesTo(6), 6},
	}
	for name, row := range rows {
		for _, ordered := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ordered=", ordered), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					b := mqtest.OpenMemory(t, written())
					createTopic(t, b, "T", 1)
					sendBodies(t, b, "T", 6)
					hold := newGate()
					c, err := b.NewPushConsumer("G", hold.handle, &mq.PushOptions{Ordered: ordered, Concurrency: 2})
					require.NoError(t, err)
					require.NoError(t, c.Subscribe("T", mq.All))
					pass(time.Minute)
					begun := hold.len()
					require.NotZero(t, begun)
					require.NoError(t, b.ResetOffset("G", "T", row.to))
					committed, ahead := done(t, b, "G", "T")
					hold.open()
					pass(time.Minute)
					got := hold.bodies()[begun:]
					require.ElementsMatch(t, row.want, got, "exactly what lies behind the reset, once")
					require.Len(t, hold.bodies(), begun+len(row.want), "what was begun is finished")
					after, aheadAfter := done(t, b, "G", "T")
					require.Equal(t, row.at, after)
					require.Zero(t, ahead+aheadAfter)
					require.LessOrEqual(t, committed, row.at)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

// TestStaleIsNotAcknowledged: handlers that began before a reset to the beginning
// end after it; nothing of theirs counts.
func TestStaleIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "T", 4)
		hold := newGate()
		c, err := b.NewPushConsumer("G", hold.handle, nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", mq.All))
		pass(time.Second)
		c.Pause() // nothing more begins
		require.NoError(t, b.ResetOffset("G", "T", mq.Earliest))
		hold.open()
		pass(time.Second)
		committed, ahead := done(t, b, "G", "T")
		require.Zero(t, committed)
		require.Zero(t, ahead)
		c.Resume()
		pass(time.Second)
		require.Zero(t, lag(t, b, "G"))
		require.NoError(t, c.Close())
	})
}

// TestBacklog: messages, bytes and the age of the oldest, as it goes down.
func TestBacklog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 2)
		createTopic(t, b, "U", 1)
		began := time.Now()
		c := pull(t, b, "G", "T", nil)
		require.NoError(t, c.Subscribe("U", mq.All))
		total, queues, err := b.Backlog("G")
		require.NoError(t, err)
		require.Equal(t, mq.Backlog{}, total)
		require.Len(t, queues, 3)
		require.Zero(t, total.Age())
		p := newProducer(t, b, &mq.ProducerOptions{Selector: func(m *mq.Message, _ int) mq.QueueID { return mq.QueueID(len(m.Body) % 2) }})
		for range 3 { // queue 0 and 1 by turns, a second apart
			for i := range 2 {
				_, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: make([]byte, 1000+i)})
				require.NoError(t, err)
			}
			pass(time.Second)
		}
		ms := poll(t, c, 6)
		measure := func(messages int64, oldest time.Duration) {
			t.Helper()
			total, queues, err := b.Backlog("G")
			require.NoError(t, err)
			require.Equal(t, messages, total.Messages)
			require.Equal(t, messages, lag(t, b, "G"))
			require.InDelta(t, messages*1064, total.Bytes, float64(messages*64))
			if messages == 0 {
				require.Zero(t, total.Age())
				return
			}
			require.WithinDuration(t, began.Add(oldest), total.Oldest, 10*time.Millisecond)
			require.InDelta(t, time.Since(began)-oldest, total.Age(), float64(10*time.Millisecond))
			sum := mq.Backlog{}
			for _, q := range queues {
				sum.Messages += q.Messages
				sum.Bytes += q.Bytes
			}
			require.Equal(t, [2]int64{total.Messages, total.Bytes}, [2]int64{sum.Messages, sum.Bytes})
		}
		measure(6, 0)
		var first, rest []*mq.Message
		for _, m := range ms {
			if m.Offset == 1 {
				first = append(first, m)
			} else {
				rest = append(rest, m)
			}
		}
		require.NoError(t, c.Commit(t.Context(), first...)) // ahead
		measure(4, 0)
		for queue, left := range []int64{3, 2} {
			for _, m := range rest {
				if m.Offset == 0 && m.Queue == mq.QueueID(queue) {
					require.NoError(t, c.Commit(t.Context(), m))
				}
			}
			measure(left, time.Duration(queue)*2*time.Second)
		}
		require.NoError(t, b.ResetOffset("G", "T", mq.Latest)) // RocketMQ's skipAccumulatedMessage
		measure(0, 0)
		nothingMore(t, c)
		_, _, err = b.Backlog("None")
		require.ErrorIs(t, err, mq.ErrGroupNotFound)
		require.NoError(t, c.Close())
	})
}

// TestBacklogUnderWay holds while messages are sent, consumed and dropped.
func TestBacklogUnderWay(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	push(t, b, "G", "T", func(context.Context, *mq.Message) error { return nil }, nil)
	for range 20 {
		sendBodies(t, b, "T", 100)
		total, _, err := b.Backlog("G")
		require.NoError(t, err)
		require.LessOrEqual(t, total.Messages, int64(2000))
	}
	consumed(t, b, "G")
	require.NoError(t, b.DeleteTopic("T"))
	total, queues, err := b.Backlog("G")
	require.NoError(t, err)
	require.Equal(t, mq.Backlog{}, total)
	require.Empty(t, queues)
}
