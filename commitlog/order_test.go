package commitlog_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

// Nothing is synced in these tests unless they ask for it.
func unsynced(t *testing.T) (commitlog.Options, *vfs.Mem) {
	o, mem := memOptions(t)
	o.SyncEvery, o.SyncBytes, o.SegmentBytes = time.Hour, 1<<30, 64<<10
	return o, mem
}

// Catches: the mark advanced to where the log is when the sync ends.
func TestFrameStoredDuringASyncIsNotPromised(t *testing.T) {
	t.Parallel()
	o, mem := unsynced(t)
	gate := &gateFS{FS: mem}
	o.FS = gate
	l, _, _ := open(t, o, commitlog.Start{})
	_, end := put(t, l, "a")
	var late commitlog.Position
	gate.beforeSync = func() { _, late = put(t, l, "b") }
	require.NoError(t, l.Wait(ctx, end))
	gate.beforeSync = nil
	require.Greater(t, late, end)
	assert.Equal(t, end, l.Synced())
}

// Catches: a descriptor that may be closed, and its error lost, before the bytes
// written through it are synced.
func TestSealedSegmentIsHeldUntilItIsSynced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, mem := unsynced(t)
		l, _, _ := open(t, o, commitlog.Start{})
		for len(l.Segments()) < 3 {
			put(t, l, string(make([]byte, 5000)))
		}
		synctest.Wait()
		assert.Zero(t, mem.Calls(vfs.OpUnmap)+mem.Calls(vfs.OpCut)+mem.Calls(vfs.OpClose))
		require.NoError(t, l.Sync(ctx))
		synctest.Wait()
		assert.Positive(t, mem.Calls(vfs.OpCut), "the older one is put away now")
		require.NoError(t, l.Close())
	})
}

// Catches: closing the files instead of syncing what they hold.
func TestCloseSyncsEverySegment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, mem := unsynced(t)
		l, _, _ := open(t, o, commitlog.Start{})
		for len(l.Segments()) < 3 {
			put(t, l, string(make([]byte, 5000)))
		}
		synctest.Wait() // the successor is made, and synced
		mem.Record()
		require.NoError(t, l.Close())
		var synced []string
		for _, c := range mem.Ops() {
			if c.Op == vfs.OpSync {
				synced = append(synced, filepath.Base(c.Name))
			}
		}
		for _, s := range l.Segments() {
			assert.Contains(t, synced, segmentName(s.Base))
		}
	})
}

// A fill function that fails has stored bytes behind the end of the log. Were
// they to stay, a shorter frame would leave some of them behind it, to be found
// by the next opening.
func TestFailedFillLeavesZeros(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	put(t, l, "a")
	body := bytes.Repeat([]byte{1}, 1000)
	_, err := l.Append(ctx, commitlog.Wait, commitlog.Layout{}.Add(testHead+len(body)), func(f *commitlog.Frame) error {
		f.Next(testHead, body, commitlog.BodyHash(body))
		return assert.AnError
	})
	require.ErrorIs(t, err, assert.AnError)
	killed(t, o).with(0, func(f vfs.File) {
		behind := make([]byte, 2000)
		_, err := f.ReadAt(behind, int64(l.Written()))
		require.NoError(t, err)
		assert.Equal(t, make([]byte, len(behind)), behind)
	})
}

// Catches: files closed while somebody syncs them, because the log was poisoned
// meanwhile and Close had nothing to wait for.
func TestCloseWaitsForASyncUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, mem := unsynced(t)
		gate := &gateFS{FS: mem}
		o.FS, o.Mmap = gate, false
		l, _, _ := open(t, o, commitlog.Start{})
		_, end := put(t, l, "a")
		synced := make(chan struct{})
		gate.beforeSync = func() { <-synced }
		got := make(chan error, 1)
		go func() {
			defer func() {
				if cause := recover(); cause != nil {
					got <- fmt.Errorf("panic: %v", cause)
				}
			}()
			got <- l.Wait(ctx, end)
		}()
		synctest.Wait()
		mem.Fail(func(c vfs.Call) error {
			if c.Op == vfs.OpWrite {
				return syscall.EIO
			}
			return nil
		})
		_, _, err := tryPut(ctx, l, commitlog.Wait, "b")
		require.ErrorIs(t, err, commitlog.ErrPoisoned)
		closed := make(chan error, 1)
		go func() { closed <- l.Close() }()
		synctest.Wait()
		close(synced)
		require.ErrorIs(t, <-closed, commitlog.ErrPoisoned)
		require.NoError(t, <-got, "it was synced")
	})
}
