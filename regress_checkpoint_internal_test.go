package mq

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// brokenFS is the operating system's, whose log cannot be written any more once
// broken is set.
type brokenFS struct {
	vfs.FS
	broken atomic.Bool
}

func (fs *brokenFS) Create(name string, size int64) (vfs.File, error) {
	f, err := fs.FS.Create(name, size)
	if err != nil || filepath.Base(filepath.Dir(name)) != "commitlog" {
		return f, err
	}
	return &brokenFile{f, fs}, nil
}

type brokenFile struct {
	vfs.File
	fs *brokenFS
}

func (f *brokenFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.broken.Load() {
		return 0, syscall.EIO
	}
	return f.File.WriteAt(p, off)
}

// TestCheckpointBesideAFailedWrite: the entry of a message whose frame could not
// be written is in the index when the log becomes poisoned. A checkpoint under
// way must not be completed with it: the queue would have a message for ever
// that is nowhere in the log.
func TestCheckpointBesideAFailedWrite(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	fs := &brokenFS{FS: vfs.OS()}
	o := (&Options{Durability: Written, DisableMmap: true, DefaultQueues: 1}).withDefaults(false)
	b := newBroker(o, fs, dir)
	require.NoError(t, b.open())
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	_, err = p.Send(t.Context(), &Message{Topic: "T", Body: []byte("one")})
	require.NoError(t, err)
	require.NoError(t, b.Sync(t.Context()))
	fs.broken.Store(true)
	_, err = p.Send(t.Context(), &Message{Topic: "T", Body: []byte("two")})
	require.ErrorIs(t, err, ErrPoisoned)
	require.ErrorIs(t, b.writeCheckpoint(false), ErrPoisoned) // past the check that it begins with
	require.ErrorIs(t, b.Close(), ErrPoisoned)

	b, err = Open(dir, &o)
	require.NoError(t, err)
	route, err := b.Route("T")
	require.NoError(t, err)
	require.Equal(t, Offset(1), route[0].End)
	require.NoError(t, b.Check(t.Context()))
	require.NoError(t, b.Close())
}

// gatedFS is the operating system's, on which segments are made when gate is open
// and synced is called when a queue's folder is synced.
type gatedFS struct {
	vfs.FS
	shut   atomic.Bool
	gate   chan struct{}
	synced func()
}

func (fs *gatedFS) Create(name string, size int64) (vfs.File, error) {
	if fs.shut.Load() && filepath.Base(filepath.Dir(name)) == "commitlog" {
		<-fs.gate
	}
	return fs.FS.Create(name, size)
}

func (fs *gatedFS) SyncDir(dir string) error {
	if filepath.Base(dir) == "consumequeue" {
		fs.synced()
	}
	return fs.FS.SyncDir(dir)
}

// TestCloseBesideAWaitForRoom: whoever waits for room when the store is closed gets
// none. If it comes while the last checkpoint is written, the log must not go on to
// another segment all the same: it would not end where the checkpoint says.
func TestCloseBesideAWaitForRoom(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	sent := make(chan error, 1)
	fs := &gatedFS{FS: vfs.OS(), gate: make(chan struct{})}
	fs.synced = sync.OnceFunc(func() {
		close(fs.gate)
		sent <- <-sent
	})
	o := (&Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib}).withDefaults(false)
	b := newBroker(o, fs, dir)
	require.NoError(t, b.open())
	sendNumbers(t, b, 0, 1100) // so that there is a queue file
	fs.shut.Store(true)
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for err == nil {
		err = p.SendOneWay(&Message{Topic: "T", Body: make([]byte, 64*kib)})
	}
	require.ErrorIs(t, err, ErrBackpressure)
	go func() {
		_, err := p.Send(t.Context(), &Message{Topic: "T", Body: make([]byte, 512*kib)})
		sent <- err
	}()
	require.Eventually(t, func() bool { return b.log.Stats().RoomWaits == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, b.Close())
	require.ErrorIs(t, <-sent, ErrClosed)

	b, err = Open(dir, &o)
	require.NoError(t, err)
	require.True(t, b.Recovery().Clean)
	require.NoError(t, b.Close())
}

// quotaFS is the operating system's, for a user whose quota is used up: index files
// have no room beside the store's reserve.
type quotaFS struct {
	vfs.FS
	reserve string
}

func (fs *quotaFS) Create(name string, size int64) (vfs.File, error) {
	if filepath.Base(filepath.Dir(name)) == "index" {
		if _, err := os.Stat(fs.reserve); err == nil {
			return nil, syscall.EDQUOT
		}
	}
	return fs.FS.Create(name, size)
}

// TestCheckpointSpendsTheReserve: a quota that is used up is a full disk, also for a
// checkpoint.
func TestCheckpointSpendsTheReserve(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	o := (&Options{Durability: Written, DefaultQueues: 1}).withDefaults(false)
	b := newBroker(o, &quotaFS{vfs.OS(), filepath.Join(dir, reserveName)}, dir)
	require.NoError(t, b.open())
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	_, err = p.Send(t.Context(), &Message{Topic: "T", Keys: []string{"k"}})
	require.NoError(t, err)
	require.NoError(t, b.checkpoint(false))
	require.NoError(t, b.Close())
}

// fullDisk is the operating system's, and has room for segments only where the
// store's reserve was given up.
type fullDisk struct {
	vfs.FS
	full    atomic.Bool
	reserve string
}

func (fs *fullDisk) Create(name string, size int64) (vfs.File, error) {
	if filepath.Base(filepath.Dir(name)) == "commitlog" && fs.full.Load() {
		if _, err := os.Stat(fs.reserve); err == nil {
			return nil, syscall.ENOSPC
		}
	}
	return fs.FS.Create(name, size)
}

// TestRetentionSpendsTheReserve: what is too old makes room on a full disk, also when
// what was set aside for acknowledgements is used up.
func TestRetentionSpendsTheReserve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "store")
		o := (&Options{Durability: Written, DefaultQueues: 1, SegmentBytes: mib, Retention: Retention{Age: time.Hour}}).withDefaults(false)
		fs := &fullDisk{FS: vfs.OS(), reserve: filepath.Join(dir, reserveName)}
		b := newBroker(o, fs, dir)
		require.NoError(t, b.open())
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		m := &Message{Topic: "T", Body: make([]byte, 64*kib)}
		for range 40 {
			_, err := p.Send(t.Context(), m)
			require.NoError(t, err)
		}
		c := subscribed(t, b, "G")
		require.NoError(t, c.Close())
		synctest.Wait()
		fs.full.Store(true)
		for err == nil {
			_, err = p.Send(t.Context(), m)
		}
		require.ErrorIs(t, err, ErrDiskFull)
		for err = nil; err == nil; {
			err = b.ResetOffset("G", "T", Latest)
		}
		require.ErrorIs(t, err, ErrDiskFull)
		require.Zero(t, b.Stats().Dropped)
		<-time.After(2 * time.Hour)
		synctest.Wait()
		require.Positive(t, b.Stats().Dropped)
		require.NoError(t, b.Close())
	})
}

// TestJournalOfAnotherStore: its checkpoint covers nothing of this log, so retention
// must wait for the next one.
func TestJournalOfAnotherStore(t *testing.T) {
	t.Parallel()
	dirs := []string{filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")}
	for _, dir := range dirs {
		b, err := Open(dir, &Options{Durability: Written, DefaultQueues: 1})
		require.NoError(t, err)
		sendNumbers(t, b, 0, 10)
		require.NoError(t, b.Close())
	}
	require.NoError(t, os.RemoveAll(filepath.Join(dirs[0], "journal")))
	require.NoError(t, os.CopyFS(filepath.Join(dirs[0], "journal"), os.DirFS(filepath.Join(dirs[1], "journal"))))
	b := openDir(t, dirs[0])
	require.True(t, b.Recovery().Rebuilt)
	require.Zero(t, b.upkeep.checkpointed.Load())
	require.NoError(t, b.Check(t.Context()))
}

// stubbornFS is the operating system's, where key files cannot be removed.
type stubbornFS struct{ vfs.FS }

func (fs stubbornFS) Remove(name string) error {
	if filepath.Base(filepath.Dir(name)) == "index" {
		return syscall.EIO
	}
	return fs.FS.Remove(name)
}

// TestRebuildDiscardsTheCheckpoint: a checkpoint that could not be used just now
// names files that the rebuild removes. If the process ends before the next one
// it must not be found again.
func TestRebuildDiscardsTheCheckpoint(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir, killed, again := filepath.Join(root, "store"), filepath.Join(root, "killed"), filepath.Join(root, "again")
	b := openDir(t, dir)
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	keyed := func() {
		_, err := p.Send(t.Context(), &Message{Topic: "T", Keys: []string{"k"}})
		require.NoError(t, err)
	}
	keyed()
	require.NoError(t, b.checkpoint(false))
	keyed()
	require.NoError(t, b.keys.Flush(b.log.Written())) // opening has to remove that file
	require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))

	o := (&Options{}).withDefaults(false)
	rebuilt := newBroker(o, stubbornFS{vfs.OS()}, killed)
	require.NoError(t, rebuilt.open())
	require.True(t, rebuilt.Recovery().Rebuilt)
	require.NoError(t, os.CopyFS(again, os.DirFS(killed)))
	_ = rebuilt.Close() // it cannot write a checkpoint

	b = openDir(t, again)
	require.NoError(t, b.Check(t.Context()))
	found, err := b.MessagesByKey("T", "k", 9)
	require.NoError(t, err)
	require.Len(t, found, 2)
}

// reservedFS is the operating system's, on a disk that has no room but that of
// the store's reserve.
type reservedFS struct{ vfs.FS }

func (fs reservedFS) Open(name string) (vfs.File, error) {
	f, err := fs.FS.Open(name)
	return reservedFile{f, filepath.Join(filepath.Dir(filepath.Dir(name)), reserveName)}, err
}

type reservedFile struct {
	vfs.File
	reserve string
}

func (f reservedFile) Allocate(size int64) error {
	if _, err := os.Lstat(f.reserve); err == nil {
		return syscall.ENOSPC
	}
	return f.File.Allocate(size)
}

// TestOpenSpendsTheReserve: a log that finds room only when the reserve is given
// up has been folded once by then. Folding it again leaves nothing twice.
func TestOpenSpendsTheReserve(t *testing.T) {
	t.Parallel()
	dir, killed := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := Open(dir, &Options{Durability: Written, DefaultQueues: 1})
		require.NoError(t, err)
		sendNumbers(t, b, 0, 1)
		require.NoError(t, b.checkpoint(false))
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		_, err = p.Send(t.Context(), &Message{Topic: "T", Body: []byte("keyed"), Keys: []string{"k"}})
		require.NoError(t, err)
		_, err = p.Send(t.Context(), &Message{Topic: "T", Body: []byte("later"), Delay: time.Hour})
		require.NoError(t, err)
		require.NoError(t, os.CopyFS(killed, os.DirFS(dir)))
		require.NoError(t, b.Close())

		b = newBroker((&Options{}).withDefaults(false), reservedFS{vfs.OS()}, killed)
		require.NoError(t, b.open())
		require.False(t, b.Recovery().Rebuilt)
		require.EqualValues(t, 1, b.Stats().Waiting)
		found, err := b.MessagesByKey("T", "k", 9)
		require.NoError(t, err)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		got := pollNow(t, subscribed(t, b, "G"))
		require.NoError(t, b.Check(t.Context()))
		require.NoError(t, b.Close())
		require.Len(t, found, 1)
		require.Equal(t, []string{"0", "keyed", "later"}, got)
	})
}

// unopenedFS is the operating system's, which opens no file of one of the store's
// folders once failing is set.
type unopenedFS struct {
	vfs.FS
	folder  string
	failing atomic.Bool
}

func (fs *unopenedFS) Open(name string) (vfs.File, error) {
	if fs.failing.Load() && strings.Contains(filepath.ToSlash(name), "/"+fs.folder+"/") {
		return nil, syscall.EMFILE
	}
	return fs.FS.Open(name)
}

// TestUnreadableQueueHoldsItsSegments: a group whose place cannot be read just
// now, for want of descriptors, may have yet to consume what retention is about
// to drop.
func TestUnreadableQueueHoldsItsSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opts := (&Options{SegmentBytes: mib, Durability: Written, DefaultQueues: 1, Retention: Retention{Age: time.Hour}}).withDefaults(false)
	synctest.Test(t, func(t *testing.T) {
		b, err := Open(dir, &opts)
		require.NoError(t, err)
		p, err := b.NewProducer(nil)
		require.NoError(t, err)
		c, err := b.NewPullConsumer("G", nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe("T", All))
		sendNumbers(t, b, 0, 1100) // so that the first entries are in a file
		fillTopic(t, p, "T", 100)
		require.NoError(t, b.Close())

		fs := &unopenedFS{FS: vfs.OS(), folder: "consumequeue"}
		b = newBroker(opts, fs, dir)
		require.NoError(t, b.open())
		fs.failing.Store(true)
		<-time.After(3 * time.Hour)
		synctest.Wait()
		start, held := b.log.Start(), b.Stats().HeldBy
		fs.failing.Store(false)
		require.NoError(t, b.Close())
		require.Zero(t, start)
		require.Equal(t, "G", held)
	})
}

// TestTimeOfUnreadableQueue: where a message is that was stored at some time
// cannot be told while the queue cannot be read. A group that is to go there
// must not go past all messages instead.
func TestTimeOfUnreadableQueue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openDir(t, dir)
	subscribed(t, b, "G")
	before := time.Now()
	sendNumbers(t, b, 0, 3000)
	require.NoError(t, b.Close())

	fs := &unopenedFS{FS: vfs.OS(), folder: "consumequeue"}
	b = newBroker((&Options{Durability: Written}).withDefaults(false), fs, dir)
	require.NoError(t, b.open())
	defer func() { require.NoError(t, b.Close()) }()
	fs.failing.Store(true)
	_, err := b.OffsetAt(Queue{Topic: "T"}, before)
	require.ErrorIs(t, err, syscall.EMFILE)
	require.ErrorIs(t, b.ResetOffset("G", "T", At(before)), syscall.EMFILE)
	fs.failing.Store(false)
	lag, _, err := b.Lag("G")
	require.NoError(t, err)
	require.EqualValues(t, 3000, lag)
	require.NoError(t, b.ResetOffset("G", "T", At(before)))
}

// TestReplayedDeletionKeepsFiles: a topic whose deletion is replayed is still in
// the checkpoint. Its files stay until the next one, or a second crash would leave
// a checkpoint that cannot be used.
func TestReplayedDeletionKeepsFiles(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dirs := []string{filepath.Join(root, "store"), filepath.Join(root, "killed"), filepath.Join(root, "again")}
	b := openDir(t, dirs[0])
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	_, err = p.SendBatch(t.Context(), batchTo(3000))
	require.NoError(t, err)
	require.NoError(t, b.checkpoint(false))
	require.NoError(t, b.DeleteTopic("T"))
	for i, dir := range dirs[1:] {
		require.NoError(t, os.CopyFS(dir, os.DirFS(dirs[i])))
		b = openDir(t, dir)
		require.False(t, b.Recovery().Rebuilt)
		require.Empty(t, b.Topics())
	}
	for range 2 {
		require.NoError(t, b.checkpoint(false))
	}
	left, err := os.ReadDir(filepath.Join(dirs[2], "consumequeue"))
	require.NoError(t, err)
	require.Empty(t, left)
}
