package mq

import (
	"context"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/vfs"
)

// Promises about index entries that are damaged, in a store of which retention has
// dropped a part already.

// partlyDropped is a closed store of which the first segment is gone. Offsets from
// min on are left, those below filed of them in a file.
func partlyDropped(t *testing.T) (dir string, min, filed, end Offset) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	b, err := Open(dir, &Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib})
	require.NoError(t, err)
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for len(b.log.Segments()) < 3 { // the last one is prepared for later
		_, err := p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 10_000)})
		require.NoError(t, err)
	}
	_, err = p.SendBatch(t.Context(), batchTo(3000))
	require.NoError(t, err)
	require.NoError(t, b.entries.Flush())
	dropFirst(t, b)
	q := queueOne(t, b)
	st := q.entries.Capture()
	require.Positive(t, st.Min)
	require.Greater(t, st.Flushed, (st.Min+st.End)/2)
	require.NoError(t, b.Close())
	return dir, st.Min, st.Flushed, st.End
}

// dropFirst drops the first segment as retention does.
func dropFirst(t *testing.T, b *Broker) {
	t.Helper()
	end := b.log.Segments()[1].Base
	require.NoError(t, b.carryState(t.Context(), end))
	b.trimQueues(end)
	require.NoError(t, b.log.DropBefore(context.Background(), end))
}

// damageEntry puts another entry into the only queue file of a closed store.
func damageEntry(t *testing.T, dir string, off Offset, e consumequeue.Entry) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "consumequeue", "*", "*", "*"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	f, err := os.OpenFile(found[0], os.O_RDWR, 0)
	require.NoError(t, err)
	var raw [consumequeue.EntrySize]byte
	e.Put(raw[:])
	_, err = f.WriteAt(raw[:], int64(off)*consumequeue.EntrySize)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// TestDamagedEntryIsNotDropped: an entry that leads to where the log no longer
// reaches does not say that its message was dropped.
func TestDamagedEntryIsNotDropped(t *testing.T) {
	t.Parallel()
	dir, min, _, _ := partlyDropped(t)
	damageEntry(t, dir, min+9, consumequeue.Entry{Position: 64, Size: 96})
	damageEntry(t, dir, min+99, consumequeue.Entry{})
	b := openDir(t, dir)
	m, err := b.MessageAt(Queue{Topic: "T"}, min+99)
	require.NoError(t, err)
	require.Equal(t, min+99, m.Offset)
	m, err = b.MessageAt(Queue{Topic: "T"}, min+9)
	require.NoError(t, err)
	require.Equal(t, min+9, m.Offset)
	require.NoError(t, b.Check(t.Context()))
}

// TestOffsetAtBesideHoles: offsets that have no message say nothing of time. The
// search goes by the message behind them, or what lies before them is not found.
func TestOffsetAtBesideHoles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		sendNumbers(t, b, 0, 5)
		first := time.Now()
		b.log.Exclusive(func() { queueOne(t, b).entries.Advance(15) })
		time.Sleep(time.Minute)
		second := time.Now()
		sendNumbers(t, b, 5, 10)
		b.log.Exclusive(func() { queueOne(t, b).entries.Advance(25) })
		for at, want := range map[time.Time]Offset{first.Add(-time.Hour): 0, first: 0, second: 15, second.Add(time.Hour): 25} {
			off, err := b.OffsetAt(Queue{Topic: "T"}, at)
			require.NoError(t, err)
			require.Equal(t, want, off, at)
		}
		browsed := 0
		for m, err := range b.Browse("T", first.Add(-time.Hour), second, All) {
			if err == nil {
				require.Equal(t, numbersTo(5)[browsed], string(m.Body))
				browsed++
			}
		}
		require.Equal(t, 5, browsed)
		require.NoError(t, b.Close())
	})
}

// TestDamagedEntryHoldsItsMessage: an entry that cannot be true does not make
// retention look behind the message that a group has yet to consume.
func TestDamagedEntryHoldsItsMessage(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	b, err := Open(dir, &Options{Durability: Written, DefaultQueues: 1})
	require.NoError(t, err)
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	_, err = p.SendBatch(t.Context(), batchTo(1100))
	require.NoError(t, err)
	require.NoError(t, subscribed(t, b, "G").Close())
	require.NoError(t, b.Close())
	damageEntry(t, dir, 0, consumequeue.Entry{Position: 1 << 60, Size: 96})

	b = openDir(t, dir)
	require.Less(t, b.firstUnconsumed(b.names.groupsNamed("G")[0]), b.log.Written())
}

// TestDamagedEntryHidesNoID: a message that is whole in the log is found by its id
// and its keys, whatever its queue's entry says.
func TestDamagedEntryHidesNoID(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	b, err := Open(dir, &Options{Durability: Written, DefaultQueues: 1})
	require.NoError(t, err)
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	ms := batchTo(1100)
	ms[7].Keys = []string{"k"}
	sent, err := p.SendBatch(t.Context(), ms)
	require.NoError(t, err)
	require.NoError(t, b.Close())
	damageEntry(t, dir, 7, consumequeue.Entry{Position: 64, Size: 96})

	b = openDir(t, dir)
	m, err := b.MessageByID(sent[7].ID)
	require.NoError(t, err)
	require.Equal(t, "7", string(m.Body))
	found, err := b.MessagesByKey("T", "k", 9)
	require.NoError(t, err)
	require.Len(t, found, 1)
}

// TestRebuildBoundsTimes: folding the whole log keeps no more due times in memory
// than running does.
func TestRebuildBoundsTimes(t *testing.T) {
	t.Parallel()
	const most = 300_000
	fs := newTestFS()
	b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1})
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	batch := make([]*Message, 1000)
	for i := range batch {
		batch[i] = &Message{Topic: "T", DeliverAt: time.Now().Add(time.Hour)}
	}
	for range most / len(batch) {
		_, err := p.SendBatch(t.Context(), batch)
		require.NoError(t, err)
	}
	clone := fs.Clone()
	again := openOn(t, clone, &Options{Durability: Written, DefaultQueues: 1})
	require.EqualValues(t, most, again.Stats().Waiting)
	require.LessOrEqual(t, again.timer.index.Pending(), int64(2*pendingTimes))
	require.NoError(t, again.Close())
	require.NoError(t, b.Close())
}

// TestBrowseGoesOnBehindADrop: messages that retention drops between a look at where
// the queue begins and the reading of its entries take none behind them along.
func TestBrowseGoesOnBehindADrop(t *testing.T) {
	t.Parallel()
	fs := newTestFS()
	b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1})
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	_, err = p.SendBatch(t.Context(), batchTo(2200))
	require.NoError(t, err)
	require.NoError(t, b.entries.Flush())
	forgetEntries(t, b)
	q := queueOne(t, b)
	fs.Fail(func(c vfs.Call) error {
		if c.Op != vfs.OpRead || !strings.Contains(filepath.ToSlash(c.Name), "consumequeue/") || q.entries.Min() > 0 {
			return nil
		}
		q.entries.Trim(100)
		return iofs.ErrNotExist // a sweep came right behind
	})
	browsed := 0
	for m, err := range b.Browse("T", time.Time{}, time.Time{}, All) {
		require.NoError(t, err)
		require.Equal(t, Offset(100+browsed), m.Offset)
		browsed++
	}
	require.Equal(t, 2100, browsed)
	fs.Fail(nil)
	require.NoError(t, b.Close())
}

// TestSnapshotOfSweptFiles: entries whose file the owner has removed, with the
// messages they led to, are gone for a snapshot. Those behind them are not.
func TestSnapshotOfSweptFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	b, err := Open(dir, &Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib})
	require.NoError(t, err)
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	_, err = p.SendBatch(t.Context(), batchTo(2048))
	require.NoError(t, err)
	require.NoError(t, b.entries.Flush())
	for len(b.log.Segments()) < 4 {
		_, err := p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 10_000)})
		require.NoError(t, err)
	}
	require.NoError(t, b.checkpoint(false))
	s, err := OpenReadOnly(dir, nil)
	require.NoError(t, err)
	dropFirst(t, b)
	require.NoError(t, b.checkpoint(false)) // sweeps
	left, err := filepath.Glob(filepath.Join(dir, "consumequeue", "*", "*", "*"))
	require.NoError(t, err)
	require.Empty(t, left)

	_, err = s.MessageAt(Queue{Topic: "T"}, 1)
	require.ErrorIs(t, err, ErrMessageNotFound)
	first, end := queueOne(t, b).entries.Min(), queueOne(t, b).entries.End()
	last := Offset(-1)
	for m, err := range s.Browse("T", time.Time{}, time.Time{}, All) {
		require.NoError(t, err)
		last = m.Offset
	}
	require.Less(t, first, end)
	require.Equal(t, end-1, last)
	require.NoError(t, s.Close())
	require.NoError(t, b.Close())
}

// TestRecallBesideUnreadableKeys: a message that waits, and was carried forward, is
// found by the index of keys. Where that cannot be read just now, for want of
// descriptors, nobody knows whether it waits.
func TestRecallBesideUnreadableKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opts := (&Options{SegmentBytes: mib, Durability: Written, Retention: Retention{Age: time.Hour}}).withDefaults(false)
	synctest.Test(t, func(t *testing.T) {
		b, err := Open(dir, &opts)
		require.NoError(t, err)
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		r, err := p.Send(t.Context(), &Message{Topic: "T", Delay: 30 * 24 * time.Hour})
		require.NoError(t, err)
		fillTopic(t, p, "F", 100)
		<-time.After(3 * time.Hour)
		synctest.Wait()
		require.Greater(t, b.log.Start(), r.ID.position, "it was carried forward")
		require.NoError(t, b.Close()) // its keys are in a file

		fs := &unopenedFS{FS: vfs.OS(), folder: "index"}
		b = newBroker(opts, fs, dir)
		require.NoError(t, b.open())
		p, err = b.NewProducer(nil)
		require.NoError(t, err)
		fs.failing.Store(true)
		err = p.Recall(t.Context(), r.RecallHandle())
		_, byID := b.MessageByID(r.ID)
		fs.failing.Store(false)
		m, found := b.MessageByID(r.ID)
		recalled := p.Recall(t.Context(), r.RecallHandle())
		require.NoError(t, b.Close())
		require.ErrorIs(t, err, syscall.EMFILE)
		require.NotErrorIs(t, err, ErrNotWaiting)
		require.ErrorIs(t, byID, syscall.EMFILE)
		require.NoError(t, found)
		require.Equal(t, r.ID, m.ID)
		require.NoError(t, recalled)
	})
}
