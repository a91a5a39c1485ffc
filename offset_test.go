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

func TestOffsetsAndLag(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	createTopic(t, b, "U", 1)
	sendBodies(t, b, "T", 10)
	sendBodies(t, b, "U", 3)
	c := pull(t, b, "G", "T", nil)
	require.NoError(t, c.Subscribe("U", mq.All))
	var t0, u []*mq.Message
	for _, m := range poll(t, c, 13) {
		switch {
		case m.Topic == "U":
			u = append(u, m)
		case m.Queue == 0:
			t0 = append(t0, m)
		}
	}
	require.NoError(t, c.Commit(t.Context(), t0[0], t0[2], t0[3], u[0]))
	offsets, err := b.Offsets("G", "T")
	require.NoError(t, err)
	want := []mq.QueueOffset{
		{Queue: mq.Queue{Topic: "T", ID: 0}, Committed: 1, Ahead: 2, End: 5},
		{Queue: mq.Queue{Topic: "T", ID: 1}, End: 5},
	}
	require.Equal(t, want, offsets)
	total, queues, err := b.Lag("G")
	require.NoError(t, err)
	require.Equal(t, append(want, mq.QueueOffset{Queue: mq.Queue{Topic: "U"}, Committed: 1, End: 3}), queues)
	require.Equal(t, int64(2+5+2), total)

	require.NoError(t, b.CreateTopic("New", nil))
	offsets, err = b.Offsets("G", "New")
	require.NoError(t, err)
	require.Empty(t, offsets, "the group never subscribed to it")
}

// TestOffsetAt: the first message stored at that time or later.
func TestOffsetAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		q := mq.Queue{Topic: "T"}
		began := time.Now()
		for range 5 {
			sendBodies(t, b, "T", 2)
			pass(time.Second)
		}
		rows := map[time.Duration]mq.Offset{
			-time.Hour: 0, 0: 0, time.Nanosecond: 2, time.Second: 2, 1500 * time.Millisecond: 4,
			4 * time.Second: 8, 4*time.Second + 1: 10, time.Hour: 10,
		}
		for after, want := range rows {
			off, err := b.OffsetAt(q, began.Add(after))
			require.NoError(t, err)
			require.Equal(t, want, off, "after %v", after)
		}
		_, err := b.OffsetAt(mq.Queue{Topic: "T", ID: 1}, began)
		require.ErrorIs(t, err, mq.ErrQueueNotFound)
		_, err = b.OffsetAt(mq.Queue{Topic: "U"}, began)
		require.ErrorIs(t, err, mq.ErrTopicNotFound)
	})
}

// TestStoredAt: the time that the message itself says, of every message stored, and
// an error for each offset that has none.
func TestStoredAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 1)
		q := mq.Queue{Topic: "T"}
		began := time.Now()
		for range 5 {
			sendBodies(t, b, "T", 2)
			pass(time.Second)
		}
		for off := range mq.Offset(10) {
			at, err := b.StoredAt(q, off)
			require.NoError(t, err)
			require.Equal(t, began.Add(time.Duration(off/2)*time.Second).UnixMilli(), at.UnixMilli(), "offset %d", off)
		}
		for off, want := range map[mq.Offset]error{-1: mq.ErrOffsetOutOfRange, 10: mq.ErrMessageNotFound, 11: mq.ErrOffsetOutOfRange} {
			_, err := b.StoredAt(q, off)
			require.ErrorIs(t, err, want, "offset %d", off)
		}
		_, err := b.StoredAt(mq.Queue{Topic: "T", ID: 1}, 0)
		require.ErrorIs(t, err, mq.ErrQueueNotFound)
		_, err = b.StoredAt(mq.Queue{Topic: "U"}, 0)
		require.ErrorIs(t, err, mq.ErrTopicNotFound)
	})
}

func TestResetOffset(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 10)
	q := mq.Queue{Topic: "T"}
	c := pull(t, b, "G", "T", nil)
	reset := func(to mq.Whence, want mq.Offset) {
		t.Helper()
		require.NoError(t, b.ResetOffset("G", "T", to))
		committed, ahead := done(t, b, "G", "T")
		require.Equal(t, want, committed, to.String())
		require.Zero(t, ahead)
	}
	early := poll(t, c, 5)
	require.NoError(t, c.Commit(t.Context(), early[0], early[3]))
	reset(mq.Latest, 10)
	nothingMore(t, c)
	reset(mq.Earliest, 0)
	require.Equal(t, bodiesTo(10), bodiesOf(poll(t, c, 10)))
	reset(mq.AtOffset(q, 7), 7)
	require.Equal(t, bodiesTo(10)[7:], bodiesOf(poll(t, c, 3)))
	reset(mq.AtOffset(q, 10), 10)
	reset(mq.At(time.Now().Add(time.Hour)), 10)
	reset(mq.At(time.Now().Add(-time.Hour)), 0)
	require.ErrorIs(t, c.Commit(t.Context(), early...), mq.ErrStale, "acks of before a reset mean nothing")
	committed, ahead := done(t, b, "G", "T")
	require.Equal(t, [2]int64{0, 0}, [2]int64{int64(committed), ahead})
	now := poll(t, c, 2)
	require.ErrorIs(t, c.Commit(t.Context(), append(early, now...)...), mq.ErrStale)
	committed, _ = done(t, b, "G", "T")
	require.Equal(t, mq.Offset(2), committed, "those of after it count")
	require.NoError(t, b.Close())

	b = mqtest.OpenDir(t, dir, written())
	c = pull(t, b, "G", "T", nil)
	require.Equal(t, bodiesTo(10)[2:], bodiesOf(poll(t, c, 8)))
}

// TestResetOfOneQueue leaves the others where they are, with what is
// acknowledged ahead in them.
func TestResetOfOneQueue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 2)
	sendBodies(t, b, "T", 20)
	c := pull(t, b, "G", "T", nil)
	for _, m := range poll(t, c, 20) {
		if m.Offset != 3 {
			require.NoError(t, c.Commit(t.Context(), m))
		}
	}
	require.NoError(t, b.ResetOffset("G", "T", mq.AtOffset(mq.Queue{Topic: "T", ID: 1}, 5)))
	want := []mq.QueueOffset{
		{Queue: mq.Queue{Topic: "T", ID: 0}, Committed: 3, Ahead: 6, End: 10},
		{Queue: mq.Queue{Topic: "T", ID: 1}, Committed: 5, End: 10},
	}
	check := func(b *mq.Broker) {
		offsets, err := b.Offsets("G", "T")
		require.NoError(t, err)
		require.Equal(t, want, offsets)
	}
	check(b)
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, written())
	check(b)
	got := map[mq.QueueID][]mq.Offset{}
	for _, m := range poll(t, pull(t, b, "G", "T", nil), 6) {
		got[m.Queue] = append(got[m.Queue], m.Offset)
	}
	require.Equal(t, map[mq.QueueID][]mq.Offset{0: {3}, 1: {5, 6, 7, 8, 9}}, got)
}

// TestResetBadly changes nothing.
func TestResetBadly(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 10)
	c := pull(t, b, "G", "T", nil)
	ms := poll(t, c, 4)
	q := mq.Queue{Topic: "T"}
	rows := []struct {
		group, topic string
		to           mq.Whence
		want         error
	}{
		{"None", "T", mq.Earliest, mq.ErrGroupNotFound},
		{"", "T", mq.Earliest, mq.ErrGroupNotFound},
		{"G", "None", mq.Earliest, mq.ErrTopicNotFound},
		{"G", "T", mq.AtOffset(q, -1), mq.ErrOffsetOutOfRange},
		{"G", "T", mq.AtOffset(q, 11), mq.ErrOffsetOutOfRange},
		{"G", "T", mq.AtOffset(mq.Queue{Topic: "T", ID: 1}, 0), mq.ErrQueueNotFound},
		{"G", "T", mq.AtOffset(mq.Queue{Topic: "U"}, 0), mq.ErrQueueNotFound},
	}
	for _, row := range rows {
		require.ErrorIs(t, b.ResetOffset(row.group, row.topic, row.to), row.want, row.to.String())
	}
	require.NoError(t, c.Commit(t.Context(), ms...), "nothing was reset")
}

// TestResetUnderLoad: handlers run while offsets go back and forth; afterwards
// everything from the last reset on has come at least once, and the books agree.
func TestResetUnderLoad(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered=", ordered), func(t *testing.T) {
			t.Parallel()
			b := mqtest.OpenMemory(t, written())
			createTopic(t, b, "T", 3)
			sendKeyed(t, b, "T", 0, 1500, "a", "b", "c", "d", "e")
			last := newGenerations()
			push(t, b, "G", "T", last.handle, &mq.PushOptions{Ordered: ordered})
			for i := range 30 {
				last.begin()
				to := mq.Earliest
				if i%3 == 0 {
					to = mq.Latest
				}
				require.NoError(t, b.ResetOffset("G", "T", to))
			}
			last.begin()
			require.NoError(t, b.ResetOffset("G", "T", mq.Earliest))
			consumed(t, b, "G")
			require.Len(t, last.messages(), 1500)
		})
	}
}

// generations keeps the messages that came since the last begin.
type generations struct {
	inbox
	seen map[string]bool
}

func newGenerations() *generations { return &generations{seen: map[string]bool{}} }

func (g *generations) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got, g.seen = nil, map[string]bool{}
}

func (g *generations) handle(_ context.Context, m *mq.Message) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.seen[string(m.Body)] { // those on their way before a reset may come twice
		g.seen[string(m.Body)] = true
		g.got = append(g.got, m)
	}
	return nil
}
