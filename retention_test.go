package mq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// small are options of a store whose segments are of 1 MiB.
func small(r mq.Retention) *mq.Options {
	return &mq.Options{Durability: mq.Written, SegmentBytes: 1 << 20, Retention: r}
}

// fill stores n messages of 64 KiB each, numbered from from.
func fill(t testing.TB, b *mq.Broker, topic string, from, n int) {
	t.Helper()
	p := newProducer(t, b, nil)
	for i := from; i < from+n; i++ {
		body := append(make([]byte, 64<<10), fmt.Sprint(i)...)
		_, err := p.Send(t.Context(), &mq.Message{Topic: topic, Keys: []string{"k"}, Body: body})
		require.NoError(t, err, "message %d", i)
	}
}

// start is the first offset of the topic's queue 0.
func start(t testing.TB, b *mq.Broker, topic string) mq.Offset {
	t.Helper()
	route, err := b.Route(topic)
	require.NoError(t, err)
	return route[0].Start
}

// TestRetentionBySize: the oldest go when the log is as large as it may be; what
// is left is whole, and offsets go on.
func TestRetentionBySize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var mu sync.Mutex
	var dropped mq.DroppedInfo
	o := small(mq.Retention{MaxBytes: 8 << 20})
	o.Hooks = &mq.Hooks{Dropped: func(info mq.DroppedInfo) {
		mu.Lock()
		defer mu.Unlock()
		dropped.Segments += info.Segments
		dropped.Bytes += info.Bytes
	}}
	b := mqtest.OpenDir(t, dir, o)
	createTopic(t, b, "T", 1)
	first := send(t, b, &mq.Message{Topic: "T", Keys: []string{"first"}})[0]
	fill(t, b, "T", 1, 400) // 25 MiB
	mqtest.Eventually(t, func() bool { return start(t, b, "T") > 100 }, "old segments are dropped")
	require.LessOrEqual(t, b.Stats().LogBytes, int64(8<<20))
	mqtest.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return dropped.Segments > 0 && dropped.Bytes > 0
	}, "the hook is told")
	_, err := b.MessageByID(first.ID)
	require.ErrorIs(t, err, mq.ErrMessageNotFound)
	found, err := b.MessagesByKey("T", "first", 64)
	require.NoError(t, err)
	require.Empty(t, found)
	found, err = b.MessagesByKey("T", "k", 1)
	require.NoError(t, err)
	require.Len(t, found, 1)

	check := func(b *mq.Broker, group string) {
		c := pull(t, b, group, "T", nil) // from here on nothing is dropped
		from, _ := done(t, b, group, "T")
		for i, m := range poll(t, c, int(401-from)) {
			require.Equal(t, from+mq.Offset(i), m.Offset)
			require.Equal(t, fmt.Sprint(m.Offset), string(m.Body[64<<10:]))
		}
		require.NoError(t, c.Commit(t.Context()))
		require.Zero(t, lag(t, b, group), "what is gone does not count")
	}
	check(b, "Before")
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, o)
	check(b, "After")
	require.Zero(t, b.Stats().Missed, "groups that start at the oldest message miss nothing")
}

// TestRetentionByAge in a bubble: three days pass.
func TestRetentionByAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, small(mq.Retention{}))
		createTopic(t, b, "T", 1)
		fill(t, b, "T", 0, 100)
		pass(71 * time.Hour)
		require.Zero(t, start(t, b, "T"))
		pass(2 * time.Hour)
		from := start(t, b, "T")
		require.Greater(t, from, mq.Offset(50), "all but what shares the last segment")
		require.LessOrEqual(t, from, mq.Offset(100))
		require.Positive(t, b.Stats().Dropped)
		fill(t, b, "T", 100, 1)
		pass(time.Second)
		c := pull(t, b, "G", "T", nil)
		require.Len(t, poll(t, c, int(101-from)), int(101-from))
	})
}

func TestRetentionOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, small(mq.Retention{Age: -1}))
		createTopic(t, b, "T", 1)
		fill(t, b, "T", 0, 100)
		pass(1_000_000 * time.Hour)
		require.Zero(t, start(t, b, "T"))
	})
}

// TestFullStore: what a group has yet to consume is not dropped, so senders are
// told; acknowledgements, resets and deletions still go through; and when the
// group has consumed there is room again.
func TestFullStore(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB, *mq.Options) *mq.Broker{"disk": mqtest.Open, "memory": mqtest.OpenMemory} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, small(mq.Retention{MaxBytes: 8 << 20}))
			createTopic(t, b, "T", 1)
			createTopic(t, b, "U", 1)
			c := pull(t, b, "Slow", "T", nil)
			require.NoError(t, c.Subscribe("U", mq.All))
			send(t, b, &mq.Message{Topic: "U"})
			p := newProducer(t, b, nil)
			m := &mq.Message{Topic: "T", Body: make([]byte, 64<<10)}
			stored := 0
			var err error
			for ; stored < 1000 && err == nil; stored++ {
				_, err = p.Send(t.Context(), m)
			}
			stored--
			require.ErrorIs(t, err, mq.ErrFull)
			require.Greater(t, stored, 64, "half of it is used at least")
			_, err = p.Send(t.Context(), m)
			require.ErrorIs(t, err, mq.ErrFull)
			_, err = p.SendBatch(t.Context(), []*mq.Message{m, m})
			require.ErrorIs(t, err, mq.ErrFull)
			require.ErrorIs(t, p.SendAsync(t.Context(), m, func(mq.SendResult, error) { t.Error("called") }), mq.ErrFull)
			require.ErrorIs(t, p.SendOneWay(m), mq.ErrFull)
			mqtest.Eventually(t, func() bool { return b.Stats().HeldBy == "Slow" && b.Stats().HeldBytes > 0 }, "Stats tell who holds it")
			require.LessOrEqual(t, b.Stats().LogBytes, int64(8<<20))

			// A full store can be drained.
			for range stored + 1 {
				require.NoError(t, c.Commit(t.Context(), poll(t, c, 1)...), "one by one, so that it takes room")
			}
			require.NoError(t, b.ResetOffset("Slow", "U", mq.Latest))
			require.NoError(t, b.DeleteTopic("U"))
			mqtest.Eventually(t, func() bool {
				_, err := p.Send(t.Context(), m)
				require.True(t, err == nil || errors.Is(err, mq.ErrFull), "%v", err)
				return err == nil
			}, "room again")
			mqtest.Eventually(t, func() bool { return b.Stats().HeldBy == "" }, "nobody holds it")
			require.Len(t, poll(t, c, 1), 1)
			require.Zero(t, b.Stats().Missed)
		})
	}
}

// TestRoomForLargeFrame: a message larger than a segment has more dropped than
// others, if that helps.
func TestRoomForLargeFrame(t *testing.T) {
	t.Parallel()
	o := small(mq.Retention{MaxBytes: 8 << 20})
	o.MaxBodyBytes = 15 << 20
	b := mqtest.Open(t, o)
	createTopic(t, b, "T", 1)
	fill(t, b, "T", 0, 200)
	p, from := newProducer(t, b, nil), start(t, b, "T")
	_, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: make([]byte, 8<<20)})
	require.ErrorIs(t, err, mq.ErrFull)
	require.Less(t, start(t, b, "T"), from+32, "it has no place whatever goes")
	_, err = p.Send(t.Context(), &mq.Message{Topic: "T", Body: make([]byte, 4<<20)})
	require.NoError(t, err)
	require.Greater(t, start(t, b, "T"), from)
	require.LessOrEqual(t, b.Stats().LogBytes, int64(8<<20))
}

// TestDropUnconsumed is RocketMQ's way: the oldest go, whoever needs them, and
// those who do are told what they missed.
func TestDropUnconsumed(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var missed []mq.MissedInfo
	o := small(mq.Retention{MaxBytes: 8 << 20, DropUnconsumed: true})
	o.Hooks = &mq.Hooks{Missed: func(info mq.MissedInfo) {
		mu.Lock()
		defer mu.Unlock()
		missed = append(missed, info)
	}}
	b := mqtest.Open(t, o)
	createTopic(t, b, "T", 1)
	c := pull(t, b, "Slow", "T", nil)
	fill(t, b, "T", 0, 3)
	require.NoError(t, c.Commit(t.Context(), poll(t, c, 3)[1]))
	require.NoError(t, c.Close())
	fill(t, b, "T", 3, 397)
	mqtest.Eventually(t, func() bool { return start(t, b, "T") > 100 }, "old segments are dropped")
	var got inbox
	pushed, err := b.NewPushConsumer("Slow", got.handle, nil)
	require.NoError(t, err)
	require.NoError(t, pushed.Subscribe("T", mq.All))
	// Lag does not count what was dropped: it may be 0 while a worker still has
	// messages in hand that it read just before.
	mqtest.Eventually(t, func() bool { return b.Stats().Missed+int64(got.len())+1 >= 400 }, "handled, missed, or acknowledged before")
	consumed(t, b, "Slow")
	require.NoError(t, pushed.Close())
	mu.Lock()
	defer mu.Unlock()
	gone := int64(0)
	for _, m := range missed {
		require.Equal(t, "Slow", m.Group)
		require.NoError(t, m.Err, "dropped, not damaged")
		gone += int64(m.To - m.From)
	}
	require.Equal(t, gone, b.Stats().Missed)
	require.Equal(t, int64(400), gone+int64(got.len())+1, "handled, missed, or acknowledged before")
}

// TestGroupExpiry: a group nobody is a member of holds its messages for so long
// only; it keeps its progress.
func TestGroupExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, small(mq.Retention{Age: time.Hour, GroupExpiry: 48 * time.Hour}))
		createTopic(t, b, "T", 1)
		living := pull(t, b, "Living", "T", nil)
		gone := pull(t, b, "Gone", "T", nil)
		fill(t, b, "T", 0, 100)
		require.NoError(t, gone.Commit(t.Context(), poll(t, gone, 10)...))
		require.NoError(t, living.Commit(t.Context(), poll(t, living, 90)...))
		require.NoError(t, gone.Close())
		pass(47 * time.Hour)
		require.Zero(t, start(t, b, "T"))
		require.Equal(t, "Gone", b.Stats().HeldBy)
		pass(2 * time.Hour)
		from := start(t, b, "T")
		require.Greater(t, from, mq.Offset(50))
		require.LessOrEqual(t, from, mq.Offset(90), "the group that has a member holds its messages for ever")
		committed, _ := done(t, b, "Gone", "T")
		require.Equal(t, mq.Offset(10), committed)
		gone = pull(t, b, "Gone", "T", nil)
		require.Equal(t, from, poll(t, gone, 1)[0].Offset)
		require.Equal(t, int64(from-10), b.Stats().Missed)
		require.Len(t, poll(t, living, 10), 10)
	})
}

// TestRetentionKeepsWhatIsInForce: topics, groups, resets and ends of queues
// whose records lay in the segments that went are there after the next opening,
// also if the checkpoint is gone.
func TestRetentionKeepsWhatIsInForce(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		dir := t.TempDir()
		o := small(mq.Retention{MaxBytes: 8 << 20})
		b := mqtest.OpenDir(t, dir, o)
		require.NoError(t, b.CreateTopic("Quiet", &mq.TopicConfig{Queues: 3, Durability: mq.Synced}))
		createTopic(t, b, "Deleted", 1)
		createTopic(t, b, "T", 1)
		sendBodies(t, b, "Quiet", 9)
		for _, group := range []string{"A", "B"} {
			c := pull(t, b, group, "Quiet", nil)
			require.NoError(t, c.Commit(t.Context(), poll(t, c, 9)...))
			require.NoError(t, c.Close())
		}
		require.NoError(t, b.DeleteTopic("Deleted"))
		require.NoError(t, b.DeleteGroup("B"))
		fill(t, b, "T", 0, 300)
		mqtest.Eventually(t, func() bool { return start(t, b, "Quiet") == 3 }, "its messages are dropped")
		require.NoError(t, b.Close())
		if lost {
			loseJournal(t, dir)
		}

		b = mqtest.OpenDir(t, dir, o)
		require.Equal(t, lost, b.Recovery().Rebuilt)
		require.Equal(t, []string{"Quiet", "T"}, b.Topics())
		require.Equal(t, []string{"A"}, b.Groups())
		info, err := b.Topic("Quiet")
		require.NoError(t, err)
		require.Equal(t, mq.TopicInfo{Name: "Quiet", Queues: 3, Durability: mq.Synced, Groups: []string{"A"}}, info)
		require.Zero(t, lag(t, b, "A"))
		for _, r := range sendBodies(t, b, "Quiet", 3) {
			require.Equal(t, mq.Offset(3), r.Offset, "offsets go on")
		}
		c := pull(t, b, "A", "Quiet", nil)
		require.Equal(t, 3, len(poll(t, c, 3)))
		nothingMore(t, c)
	}
}

// TestRetentionUnderLoad: senders, consumers and dropping run beside each other;
// every message is handled once.
func TestRetentionUnderLoad(t *testing.T) {
	t.Parallel()
	b := mqtest.Open(t, small(mq.Retention{MaxBytes: 6 << 20}))
	createTopic(t, b, "T", 3)
	crowd := newCrowd()
	push(t, b, "G", "T", crowd.handle, nil)
	const n = 1200
	p := newProducer(t, b, nil)
	pad := make([]byte, 16<<10)
	for i := 0; i < n; {
		_, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: append(pad[:len(pad):len(pad)], fmt.Sprint(i)...)})
		if errors.Is(err, mq.ErrFull) {
			<-time.After(time.Millisecond)
			continue
		}
		require.NoError(t, err)
		i++
	}
	consumed(t, b, "G")
	crowd.verify(t, n)
	require.Positive(t, b.Stats().Dropped)
	require.Zero(t, b.Stats().Missed)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, b.Check(ctx))
}

// TestDroppedHookSends: what the hook sends may need room that only retention makes.
// So it must not be retention itself that waits for the hook.
func TestDroppedHookSends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p *mq.Producer
		told := false
		o := small(mq.Retention{MaxBytes: 8 << 20})
		o.Hooks = &mq.Hooks{Dropped: func(mq.DroppedInfo) {
			if told {
				return
			}
			told = true
			for range 200 { // more than was dropped
				if _, err := p.Send(t.Context(), &mq.Message{Topic: "Told", Body: make([]byte, 64<<10)}); err != nil {
					t.Error(err)
				}
			}
		}}
		b := mqtest.OpenMemory(t, o)
		p = newProducer(t, b, nil)
		fill(t, b, "T", 0, 200)
		synctest.Wait()
		require.True(t, told)
		route, err := b.Route("Told")
		require.NoError(t, err)
		end := mq.Offset(0)
		for _, q := range route {
			end += q.End
		}
		require.Equal(t, mq.Offset(200), end)
	})
}
