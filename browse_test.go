package mq_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// browsed are the bodies that a browse returns; its errors are none.
func browsed(t testing.TB, b *mq.Broker, topic string, from, to time.Time, f mq.Filter) []string {
	t.Helper()
	bodies := []string{}
	for m, err := range b.Browse(topic, from, to, f) {
		require.NoError(t, err)
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

// TestBrowse: what was stored between two times, of all queues in the order of the
// log, as the filter wants it.
func TestBrowse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mqtest.OpenMemory(t, written())
		createTopic(t, b, "T", 3)
		began := time.Now()
		for i := range 10 { // ten a second
			ms := numbered("T", 10*i, 10*i+10)
			for j, m := range ms {
				m.Tag, m.Properties = fmt.Sprint("t", j%2), map[string]string{"n": string(m.Body)}
			}
			send(t, b, ms...)
			send(t, b, &mq.Message{Topic: "U", Body: []byte("another topic")})
			pass(time.Second)
		}
		never := time.Time{}
		at := func(d time.Duration) time.Time { return began.Add(d) }
		rows := []struct {
			from, to time.Time
			filter   mq.Filter
			want     []string
		}{
			{never, never, mq.All, bodiesTo(100)},
			{at(-time.Hour), at(time.Hour), mq.All, bodiesTo(100)},
			{at(3 * time.Second), at(5 * time.Second), mq.All, bodiesTo(100)[30:50]},
			{at(3*time.Second + 1), at(5*time.Second + 1), mq.All, bodiesTo(100)[40:60]},
			{at(9 * time.Second), never, mq.All, bodiesTo(100)[90:]},
			{never, at(time.Second), mq.SQL("n BETWEEN 3 AND 1000"), bodiesTo(100)[3:10]},
			{at(time.Second), at(2 * time.Second), mq.Tags("t1"), []string{"11", "13", "15", "17", "19"}},
			{never, never, mq.SQL("n > 1000"), []string{}},
			{never, began, mq.All, []string{}},
			{at(time.Hour), never, mq.All, []string{}},
			{at(5 * time.Second), at(3 * time.Second), mq.All, []string{}},
			{time.Unix(-1<<40, 0), time.Unix(1<<40, 0), mq.All, bodiesTo(100)},
		}
		for i, row := range rows {
			require.Equal(t, row.want, browsed(t, b, "T", row.from, row.to, row.filter), i)
		}
		for _, err := range b.Browse("None", never, never, mq.All) {
			require.ErrorIs(t, err, mq.ErrTopicNotFound)
		}
		for _, err := range b.Browse("T", never, never, mq.SQL("n >")) {
			require.ErrorIs(t, err, mq.ErrInvalidFilter)
		}
		n := 0
		for m, err := range b.Browse("T", never, never, mq.All) {
			require.NoError(t, err)
			require.Zero(t, m.Attempt, "it was not delivered")
			if n++; n == 7 {
				break
			}
		}
	})
}

// TestBrowseDisturbsNobody: groups go on as if nobody had looked, and what was
// found that way cannot be acknowledged.
func TestBrowseDisturbsNobody(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 2)
	sendBodies(t, b, "T", 20)
	c := pull(t, b, "G", "T", nil)
	ms := poll(t, c, 5)
	require.NoError(t, c.Commit(t.Context(), ms[:2]...))
	offsets, err := b.Offsets("G", "T")
	require.NoError(t, err)
	unchanged(t, b, func() {
		for m, err := range b.Browse("T", time.Time{}, time.Time{}, mq.All) {
			require.NoError(t, err)
			require.ErrorIs(t, c.Commit(t.Context(), m), mq.ErrNotAssigned)
			again, err := b.MessageAt(mq.Queue{Topic: "T", ID: m.Queue}, m.Offset)
			require.NoError(t, err)
			require.Equal(t, m, again)
			require.ErrorIs(t, c.Commit(t.Context(), again), mq.ErrNotAssigned)
			_, err = b.MessageTrack(m.ID)
			require.NoError(t, err)
		}
		_, _, err := b.Backlog("G")
		require.NoError(t, err)
	})
	after, err := b.Offsets("G", "T")
	require.NoError(t, err)
	require.Equal(t, offsets, after)
	require.Len(t, poll(t, c, 15), 15)
	nothingMore(t, c)
}

// TestBrowseSeesWhatConsumersSee, and no more.
func TestBrowseSeesWhatConsumersSee(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, &mq.Options{SyncEvery: time.Hour})
	require.NoError(t, b.CreateTopic("T", &mq.TopicConfig{Queues: 1, Durability: mq.Synced}))
	p := newProducer(t, b, nil)
	_, err := p.Send(t.Context(), &mq.Message{Topic: "T", Body: []byte("0")})
	require.NoError(t, err)
	require.NoError(t, p.SendOneWay(&mq.Message{Topic: "T", Body: []byte("1")}))
	q := mq.Queue{Topic: "T"}
	if _, err := b.MessageAt(q, 1); err != nil { // it may have been synced already
		require.ErrorIs(t, err, mq.ErrOffsetOutOfRange)
	}
	require.NoError(t, b.Sync(t.Context()))
	_, err = b.MessageAt(q, 1)
	require.NoError(t, err)
	require.Equal(t, bodiesTo(2), browsed(t, b, "T", time.Time{}, time.Time{}, mq.All))
}

// TestMessageAt refuses what is not there.
func TestMessageAt(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1)
	sendBodies(t, b, "T", 3)
	q := mq.Queue{Topic: "T"}
	for i := range 3 {
		m, err := b.MessageAt(q, mq.Offset(i))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), string(m.Body))
		require.Equal(t, mq.Offset(i), m.Offset)
	}
	for off, want := range map[mq.Offset]error{-1: mq.ErrOffsetOutOfRange, 3: mq.ErrOffsetOutOfRange, 1 << 40: mq.ErrOffsetOutOfRange, -1 << 62: mq.ErrOffsetOutOfRange} {
		_, err := b.MessageAt(q, off)
		require.ErrorIs(t, err, want)
		require.ErrorContains(t, err, fmt.Sprint(off))
	}
	_, err := b.MessageAt(mq.Queue{Topic: "T", ID: 1}, 0)
	require.ErrorIs(t, err, mq.ErrQueueNotFound)
	_, err = b.MessageAt(mq.Queue{Topic: "None"}, 0)
	require.ErrorIs(t, err, mq.ErrTopicNotFound)
}

// TestBrowseDropped: what retention has dropped is not found, and no error of a
// browse.
func TestBrowseDropped(t *testing.T) {
	t.Parallel()
	o := written()
	o.SegmentBytes, o.Retention = 4<<20, mq.Retention{MaxBytes: 16 << 20, Age: -1}
	b := mqtest.OpenDir(t, t.TempDir(), o)
	createTopic(t, b, "T", 1)
	fill(t, b, "T", 0, 400) // 25 MiB
	q := mq.Queue{Topic: "T"}
	mqtest.Eventually(t, func() bool {
		route, err := b.Route("T")
		return err == nil && route[0].Start > 0
	}, "retention dropped something")
	_, err := b.MessageAt(q, 0)
	require.ErrorIs(t, err, mq.ErrMessageNotFound)
	bodies := browsed(t, b, "T", time.Time{}, time.Time{}, mq.All)
	require.NotEmpty(t, bodies)
	require.Less(t, len(bodies), 400)
}

// TestBrowseDamaged: a damaged message is an error, and the next ones follow.
func TestBrowseDamaged(t *testing.T) {
	t.Parallel()
	h := makeStore(t, 300)
	h.close()
	lost, _, _ := h.damage(100)
	h.start(handOptions())
	var errs []error
	n := 0
	for m, err := range h.b.Browse(lost.Topic, time.Time{}, time.Time{}, mq.All) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		require.NotEqual(t, lost.ID, m.ID)
		n++
	}
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], mq.ErrCorrupt)
	info, err := h.b.Topic(lost.Topic)
	require.NoError(t, err)
	require.Equal(t, info.Messages-1, int64(n))
	_, err = h.b.MessageAt(mq.Queue{Topic: lost.Topic, ID: lost.Queue}, lost.Offset)
	require.ErrorIs(t, err, mq.ErrCorrupt)
}

// TestQueriesOfLongKeys: keys of 10 KiB are keys like others, and longer ones than
// a message can have are not found.
func TestQueriesOfLongKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := mqtest.OpenDir(t, dir, written())
	createTopic(t, b, "T", 1)
	long := strings.Repeat("k", 10<<10)
	send(t, b, &mq.Message{Topic: "T", Keys: []string{long, long + "2", "\x00 \xff"}, Body: []byte("0")}, &mq.Message{Topic: "T", Keys: []string{long}, Body: []byte("1")})
	check := func() {
		for key, want := range map[string][]string{long: {"1", "0"}, long + "2": {"0"}, "\x00 \xff": {"0"}, long + "3": {}, strings.Repeat("k", 1<<20): {}, "": {}} {
			ms, err := b.MessagesByKey("T", key, 64)
			require.NoError(t, err)
			require.Equal(t, want, bodiesOf(ms), "%.20q", key)
		}
	}
	check()
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(t, dir, written())
	check()
	require.NoError(t, b.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "index")))
	b = mqtest.OpenDir(t, dir, written())
	check()
	unchanged(t, b, func() {
		for _, most := range []int{0, -1, 65} {
			_, err := b.MessagesByKey("T", long, most)
			require.ErrorIs(t, err, mq.ErrInvalidArgument)
		}
		_, err := b.MessagesByKey("None", long, 1)
		require.ErrorIs(t, err, mq.ErrTopicNotFound)
		_, err = b.OffsetAt(mq.Queue{Topic: "T"}, time.Time{})
		require.NoError(t, err)
		for at, want := range map[time.Time]mq.Offset{{}: 0, time.Unix(-1<<40, 0): 0, time.Unix(1<<40, 0): 2} {
			off, err := b.OffsetAt(mq.Queue{Topic: "T"}, at)
			require.NoError(t, err)
			require.Equal(t, want, off, at)
		}
	})
	require.NoError(t, b.Close())
	for _, err := range []error{
		second(b.MessageAt(mq.Queue{Topic: "T"}, 0)), second(b.MessageTrack(mq.MessageID{})), b.CopyOffsets("a", "b", "T"),
	} {
		require.True(t, errors.Is(err, mq.ErrClosed), err)
	}
	for _, err := range b.Browse("T", time.Time{}, time.Time{}, mq.All) {
		require.ErrorIs(t, err, mq.ErrClosed)
	}
}

// second is the error of a call that returns something as well.
func second[T any](_ T, err error) error { return err }

// TestBrowseManyQueues merges more queues than it reads messages of at once.
func TestBrowseManyQueues(t *testing.T) {
	t.Parallel()
	b := mqtest.OpenMemory(t, written())
	createTopic(t, b, "T", 1024)
	sendBodies(t, b, "T", 3000)
	got := browsed(t, b, "T", time.Time{}, time.Time{}, mq.All)
	require.Len(t, got, 3000)
	require.True(t, slices.Equal(bodiesTo(3000), got), "in the order of the log")
}
