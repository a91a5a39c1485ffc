package commitlog_test

import (
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

func TestDropBefore(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		l, _, _ := open(t, o, commitlog.Start{})
		bodies := numbered(2000, 500)
		var refs []commitlog.Ref
		for _, b := range bodies {
			r, _ := put(t, l, b)
			refs = append(refs, r...)
		}
		keep := slices.IndexFunc(refs, func(r commitlog.Ref) bool { return r.Position > l.Segments()[2].Base })
		require.NoError(t, l.DropBefore(ctx, refs[keep].Position))
		assert.Equal(t, bodies[keep:], read(t, l, refs[keep:]))
		assert.Equal(t, bodies[keep:], scan(t, l))
		l.Read(refs[:1], func(_ int, _ commitlog.Record, err error) bool {
			assert.ErrorIs(t, err, commitlog.ErrNotFound)
			return true
		})
		list, err := o.FS.List(o.Dir)
		require.NoError(t, err)
		assert.Equal(t, segmentName(l.Start()), list[0].Name)
		require.NoError(t, l.DropBefore(ctx, refs[keep].Position), "again")
		require.NoError(t, l.DropBefore(ctx, 0))
		require.NoError(t, l.DropBefore(ctx, l.Written()))
		assert.Len(t, l.Segments(), 1, "the active one stays")
		put(t, l, "more")
		require.NoError(t, l.Close())
		_, _, got := open(t, o, commitlog.Start{})
		assert.Equal(t, "more", got[len(got)-1])
	})
}

// Catches: files removed before the START frame is synced, newest first, or
// without a sync of the folder.
func TestDropOrderAndInterruption(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	mem := o.FS.(*vfs.Mem)
	bodies := numbered(200, 1000)
	for _, b := range bodies {
		put(t, l, b)
	}
	require.NoError(t, l.Sync(ctx))
	segments := l.Segments()
	require.Len(t, segments, 4)
	before := killed(t, o)
	mem.Record()
	require.NoError(t, l.DropBefore(ctx, segments[2].Base))
	var steps []string
	for _, c := range mem.Ops() {
		if c.Op == vfs.OpRemove || c.Op == vfs.OpSync || c.Op == vfs.OpSyncDir || c.Op == vfs.OpCommit {
			steps = append(steps, c.Op.String()+" "+filepath.Base(c.Name))
		}
	}
	active := segmentName(segments[3].Base)
	assert.Equal(t, []string{"commit " + active, "sync " + active,
		"remove " + segmentName(0), "remove " + segmentName(segments[1].Base), "sync folder log"}, steps)

	// A power cut undid the first removal, but not the second.
	after := killed(t, o)
	undone, err := after.mem.Create(after.name(0), 64<<10)
	require.NoError(t, err)
	before.with(0, func(f vfs.File) {
		size, err := f.Size() // it may have been cut behind END meanwhile
		require.NoError(t, err)
		b := make([]byte, size)
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
		_, err = undone.WriteAt(b, 0)
		require.NoError(t, err)
	})
	at := segments[3].Base + 64
	l2, rec, _ := after.open(commitlog.Start{From: at, Synced: at})
	assert.Equal(t, segments[2].Base, l2.Start())
	assert.Equal(t, segments[2].Base, rec.Start)
	assert.Equal(t, segments[2].Base, after.bases()[0])
	assert.Len(t, scan(t, l2), 200-slices.Index(bodies, scan(t, l2)[0]))
}

// What is known of old segments without reading them.
func TestSegmentsAfterReopening(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	for _, b := range numbered(200, 1000) {
		put(t, l, b)
	}
	require.NoError(t, l.Sync(ctx))
	before := l.Segments()
	uncut := killed(t, o)
	require.NoError(t, l.Close())
	at := l.Written()
	for name, s := range map[string]*stored{"closed": killed(t, o), "killed": uncut} {
		l2, _, _ := s.open(commitlog.Start{From: at, Synced: at, Clean: name == "closed"})
		after := l2.Segments()
		require.Len(t, after, len(before), name)
		for i := range before[:len(before)-1] {
			assert.Equal(t, before[i].Base, after[i].Base, name)
			assert.Equal(t, before[i].End, after[i].End, name)
			assert.True(t, after[i].Sealed, name)
			assert.Equal(t, before[i].LastStored, after[i].LastStored, name)
		}
		assert.False(t, after[len(after)-1].Sealed)
	}
}

// Readers and scans that meet a drop either get a record or are told that it is
// gone; nothing looks like damage.
func TestReadWhileDropping(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		o.SegmentBytes = 64 << 10
		l, _, _ := open(t, o, commitlog.Start{})
		var refs []commitlog.Ref
		for _, b := range numbered(1000, 1000) {
			r, _ := put(t, l, b)
			refs = append(refs, r...)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, s := range l.Segments() {
				if err := l.DropBefore(ctx, s.End); err != nil {
					t.Error(err)
				}
			}
		})
		for range 2 {
			wg.Go(func() {
				l.Read(refs, func(_ int, _ commitlog.Record, err error) bool {
					if err != nil && !errors.Is(err, commitlog.ErrNotFound) {
						t.Error(err)
					}
					return true
				})
				if err := l.Scan(0, l.Written(), func(commitlog.Record) error { return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// TestSnapshotOfWhatIsDropped: what the owner drops later is gone for a snapshot,
// also where it holds no descriptor of the segment; nothing looks like damage.
func TestSnapshotOfWhatIsDropped(t *testing.T) {
	t.Parallel()
	l, o := newLog(t)
	var refs []commitlog.Ref
	for len(l.Segments()) < 80 {
		r, _ := put(t, l, string(make([]byte, 30_000)))
		refs = append(refs, r...)
	}
	snapshot, _, err := commitlog.OpenSnapshot(o, commitlog.Start{}, func(commitlog.Record) error { return nil })
	require.NoError(t, err)
	all := l.Segments()
	require.NoError(t, l.DropBefore(ctx, all[70].Base))
	gone := 0
	snapshot.Read(refs, func(_ int, _ commitlog.Record, err error) bool {
		if err != nil {
			require.ErrorIs(t, err, commitlog.ErrNotFound)
			require.NotErrorIs(t, err, commitlog.ErrCorrupt)
			gone++
		}
		return true
	})
	require.Positive(t, gone)
	require.NoError(t, snapshot.Scan(0, snapshot.Written(), func(commitlog.Record) error { return nil }))
	require.NoError(t, snapshot.Close())
}
