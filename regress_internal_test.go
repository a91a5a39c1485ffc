package mq

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/record"
	"github.com/pocketmq/mq/internal/vfs"
)

// Promises about what a store finds when it is opened, and what it leaves for
// that, which were broken once. regress_delivery_internal_test.go has those
// about delivery.

// openDir opens a store of Written topics on the disk; the test closes it.
func openDir(t *testing.T, dir string) *Broker {
	t.Helper()
	b, err := Open(dir, &Options{Durability: Written, DefaultQueues: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// sendNumbers stores messages with the bodies from, from+1 … to-1 in topic T.
func sendNumbers(t *testing.T, b *Broker, from, to int) {
	t.Helper()
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for _, body := range numbersTo(to)[from:] {
		_, err := p.Send(t.Context(), &Message{Topic: "T", Body: []byte(body)})
		require.NoError(t, err)
	}
}

// numbersTo are the bodies 0, 1 … n-1.
func numbersTo(n int) []string {
	bodies := make([]string, 0, n)
	for i := range n {
		bodies = append(bodies, fmt.Sprint(i))
	}
	return bodies
}

// batchTo are messages with the bodies 0, 1 … n-1.
func batchTo(n int) []*Message {
	ms := make([]*Message, 0, n)
	for _, body := range numbersTo(n) {
		ms = append(ms, &Message{Topic: "T", Body: []byte(body)})
	}
	return ms
}

// subscribed returns a pull consumer of topic T.
func subscribed(t *testing.T, b *Broker, group string) *PullConsumer {
	t.Helper()
	c, err := b.NewPullConsumer(group, nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", All))
	return c
}

// queueOne is queue 0 of topic T.
func queueOne(t *testing.T, b *Broker) *queue {
	t.Helper()
	q, err := b.queueOf(Queue{Topic: "T"})
	require.NoError(t, err)
	return q
}

// writeFuzzy is writeCheckpoint with something going on between the capture of
// queues and that of groups.
func writeFuzzy(t *testing.T, b *Broker, meanwhile func()) {
	t.Helper()
	from := b.log.Written()
	items := b.captureTopic(nil, b.names.topic("T"))
	meanwhile()
	b.log.Exclusive(func() {
		for _, g := range b.state.groups {
			items = captureGroup(items, g)
		}
	})
	to := b.log.Written()
	require.NoError(t, b.log.Wait(t.Context(), to))
	header := b.checkpointHeader(from, to)
	require.NoError(t, b.journal.Write(func(w io.Writer) error {
		_, err := w.Write(append(appendItem(nil, 0, header), items...))
		return err
	}, false))
}

// TestFuzzyCheckpoint: acknowledgements captured after the queues may be ahead
// of the queues' ends. The messages in between are replayed as usual: no hole
// hides one from a group that has yet to see it.
func TestFuzzyCheckpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir, killed := t.TempDir(), t.TempDir()
		b := openDir(t, dir)
		c := subscribed(t, b, "G")
		subscribed(t, b, "Other")
		sendNumbers(t, b, 0, 5)
		writeFuzzy(t, b, func() {
			sendNumbers(t, b, 5, 10)
			ms, err := c.Poll(t.Context(), 10)
			require.NoError(t, err)
			require.Len(t, ms, 10)
			require.NoError(t, c.Commit(t.Context(), ms[8]))
		})
		// What a kill leaves: the log as it is in the page cache, and that checkpoint.
		require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))

		b = openDir(t, killed)
		require.False(t, b.Recovery().Rebuilt, "the checkpoint is used")
		// The entries themselves: a hole would be filled from the log, at the price
		// of a scan.
		var entries [11]consumequeue.Entry
		n, err := queueOne(t, b).entries.Read(0, entries[:])
		require.NoError(t, err)
		require.Equal(t, 10, n)
		for off, e := range entries[:n] {
			require.False(t, e.Hole(), "offset %d", off)
		}
		require.Equal(t, numbersTo(10), pollNow(t, subscribed(t, b, "Other")))
		require.Equal(t, []string{"0", "1", "2", "3", "4", "5", "6", "7", "9"}, pollNow(t, subscribed(t, b, "G")))
		require.Zero(t, b.Stats().Missed)
	})
}

// TestAckedOffsetsAreNotGivenAgain: where damage has taken the newest messages,
// their acknowledgements still say that there were such.
func TestAckedOffsetsAreNotGivenAgain(t *testing.T) {
	t.Parallel()
	for name, ranges := range map[string][]span{
		"committed": {{From: 0, To: 7}},
		"ahead":     {{From: 3, To: 4}, {From: 6, To: 7}},
	} {
		b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
		c := subscribed(t, b, "G")
		b.log.Exclusive(func() {
			id := b.names.topic("T").id
			b.state.applyAck(&record.Ack{Group: c.group.id, Start: c.group.currentStart(id), Topic: id, Ranges: ranges})
			b.state.settleEnds()
		})
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		r, err := p.Send(t.Context(), &Message{Topic: "T"})
		require.NoError(t, err)
		require.Equal(t, Offset(7), r.Offset, name)
	}
}

// TestRebuiltIsTold: a store whose journal is gone says so, a new one and one
// that was closed do not.
func TestRebuiltIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, step := range []struct {
		name   string
		before func() error
		want   bool
	}{
		{"new", func() error { return nil }, false},
		{"closed", func() error { return nil }, false},
		{"without journal", func() error { return os.RemoveAll(filepath.Join(dir, "journal")) }, true},
		{"closed again", func() error { return nil }, false},
	} {
		require.NoError(t, step.before())
		b := openDir(t, dir)
		require.Equal(t, step.want, b.Recovery().Rebuilt, step.name)
		require.False(t, b.Recovery().Rebuilt && b.Recovery().Clean, step.name)
		sendNumbers(t, b, 0, 1)
		require.NoError(t, b.Close())
	}
}

// TestAckedCountsFromOpening: like all of Stats, not from the beginning of the
// store, whether the acknowledgements come from a checkpoint or from the log.
func TestAckedCountsFromOpening(t *testing.T) {
	t.Parallel()
	dir, killed := t.TempDir(), t.TempDir()
	b := openDir(t, dir)
	c := subscribed(t, b, "G")
	sendNumbers(t, b, 0, 10)
	ms, err := c.Poll(t.Context(), 10)
	require.NoError(t, err)
	require.NoError(t, c.Commit(t.Context(), ms[1:]...))
	require.Equal(t, int64(9), b.Stats().Acked)
	require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))
	require.NoError(t, b.Close())
	for name, dir := range map[string]string{"closed": dir, "killed": killed} {
		b := openDir(t, dir)
		require.Zero(t, b.Stats().Acked, name)
		c := subscribed(t, b, "G")
		ms, err := c.Poll(t.Context(), 10)
		require.NoError(t, err)
		require.NoError(t, c.Commit(t.Context(), ms...))
		require.Equal(t, int64(1), b.Stats().Acked, name)
	}
}

// dirSyncs is the real file system, and what was synced of its folders.
type dirSyncs struct {
	vfs.FS
	dirsMu sync.Mutex // protects dirs
	dirs   []string
}

func (fs *dirSyncs) SyncDir(dir string) error {
	fs.dirsMu.Lock()
	fs.dirs = append(fs.dirs, dir)
	fs.dirsMu.Unlock()
	return fs.FS.SyncDir(dir)
}

// between returns the synced folders from root to dir, both included.
func (fs *dirSyncs) between(root, dir string) (dirs []string) {
	fs.dirsMu.Lock()
	defer fs.dirsMu.Unlock()
	for _, d := range fs.dirs {
		if strings.HasPrefix(d, root) && strings.HasPrefix(dir, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// TestNewStoreIsDurable: a store whose name a power cut takes back is lost with
// all that was synced in it, so every folder that got a new name is synced, the
// outermost first. A folder that is there already may be one whose maker died
// before it was durable: its parent is synced again.
func TestNewStoreIsDurable(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b", "store")
	for _, want := range [][]string{
		{root, filepath.Dir(filepath.Dir(dir)), filepath.Dir(dir), dir},
		{filepath.Dir(dir), dir},
	} {
		opts := (&Options{}).withDefaults(false)
		fs := &dirSyncs{FS: vfs.OS()}
		b := newBroker(opts, fs, dir)
		require.NoError(t, b.own())
		require.NoError(t, b.open())
		require.Equal(t, want, slices.Compact(fs.between(root, dir)))
		require.NoError(t, b.Close())
	}
}

// TestFailedCheckpointIsTriedAgain: without waiting for the next segment to be
// sealed, and until it succeeds.
func TestFailedCheckpointIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS()
		b := openOn(t, fs, &Options{Durability: Written, DefaultQueues: 1})
		<-time.After(2 * retainEvery) // the upkeep has nothing to look after any more
		fs.Fail(func(c vfs.Call) error {
			if c.Op == vfs.OpCreate && strings.HasPrefix(filepath.ToSlash(c.Name), "consumequeue/") {
				return syscall.EIO
			}
			return nil
		})
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		_, err = p.SendBatch(t.Context(), batchTo(1100)) // so many entries go to a file
		require.NoError(t, err)
		files := func() int { return b.entries.Stats().OpenFiles }
		b.upkeep.wantCheckpoint()
		<-time.After(3 * retainEvery)
		synctest.Wait()
		require.Zero(t, files())
		fs.Fail(nil)
		<-time.After(retainEvery)
		synctest.Wait()
		require.Equal(t, 1, files())
		require.NoError(t, b.Close())
	})
}

// TestTrimPastDamage: an entry that is damaged does not have retention, or the
// next opening, begin the queue behind messages that are there.
func TestTrimPastDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opts := &Options{SegmentBytes: mib, Durability: Written, DefaultQueues: 1, Retention: Retention{Age: time.Hour}}
	synctest.Test(t, func(t *testing.T) {
		b, err := Open(dir, opts)
		require.NoError(t, err)
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		fillTopic(t, p, "T", 100)
		<-time.After(3 * time.Hour)
		synctest.Wait()
		first := queueOne(t, b).entries.Min()
		require.Positive(t, first, "the first segments have gone")
		sendNumbers(t, b, 0, 3000)
		end := queueOne(t, b).entries.End()
		require.NoError(t, b.Close())

		files, err := filepath.Glob(filepath.Join(dir, "consumequeue", "T@*", "0", "*"))
		require.NoError(t, err)
		require.Len(t, files, 1)
		f, err := os.OpenFile(files[0], os.O_RDWR, 0)
		require.NoError(t, err)
		var e [consumequeue.EntrySize]byte
		consumequeue.Entry{Position: 64, Size: 48}.Put(e[:])
		_, err = f.WriteAt(e[:], int64(first+(end-first)/2)*consumequeue.EntrySize) // where a search by halves looks first
		require.NoError(t, err)
		require.NoError(t, f.Close())

		b, err = Open(dir, opts)
		require.NoError(t, err)
		got, rebuilt := queueOne(t, b).entries.Min(), b.Recovery().Rebuilt
		require.NoError(t, b.Close())
		require.False(t, rebuilt)
		require.Equal(t, first, got)
	})
}

// TestCarriedBesideUpdate: retention looks at a group while its policy is changed.
// The race detector is the judge.
func TestCarriedBesideUpdate(t *testing.T) {
	t.Parallel()
	b := openOn(t, newTestFS(), &Options{Durability: Written, DefaultQueues: 1})
	sendNumbers(t, b, 0, 1)
	subscribed(t, b, "G")
	g := b.names.groupsNamed("G")[0]
	updated := make(chan struct{})
	go func() {
		defer close(updated)
		for i := range 20 {
			assert.NoError(t, b.UpdateGroup("G", GroupConfig{Retry: RetryPolicy{MaxAttempts: i + 1}}))
		}
	}()
	for done := false; !done; {
		require.NoError(t, b.carryGroup(t.Context(), g, 0)) // nothing lies below
		select {
		case <-updated:
			done = true
		default:
		}
	}
	end := b.log.Written()
	require.NoError(t, b.carryGroup(t.Context(), g, end))
	b.log.Exclusive(func() { require.GreaterOrEqual(t, g.at, end) })
}
