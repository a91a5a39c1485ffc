package vfs_test

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

func TestMemLimit(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(1000)
	a := create(t, m, "a", 600)
	_, err := m.Create("b", 401)
	require.ErrorIs(t, err, syscall.ENOSPC)
	_, err = m.Open("b")
	require.ErrorIs(t, err, fs.ErrNotExist, "no file is left behind")
	_, err = m.Create("b", -1)
	require.Error(t, err)

	b := create(t, m, "b", 400)
	_, err = b.WriteAt([]byte("x"), 400)
	require.ErrorIs(t, err, syscall.ENOSPC)
	_, err = b.WriteAt([]byte("x"), 1<<62)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, b.Allocate(401), syscall.ENOSPC)
	require.ErrorIs(t, b.Cut(401), syscall.ENOSPC)
	free, err := m.Free("")
	require.NoError(t, err)
	require.Zero(t, free)

	require.NoError(t, a.Cut(100))
	require.Equal(t, int64(500), m.Used())
	require.NoError(t, m.Rename("a", "b"))
	require.Equal(t, int64(500), m.Used(), "the file that was replaced is still open")
	require.NoError(t, b.Close())
	require.Equal(t, int64(100), m.Used())
	require.NoError(t, a.Close())
	require.NoError(t, m.RemoveAll("b"))
	require.Zero(t, m.Used())
}

func TestMemRemovedFileCountsWhileMapped(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(1000)
	f := create(t, m, "a", 1000)
	p, err := f.Map(1000)
	require.NoError(t, err)
	require.NoError(t, m.Remove("a"))
	require.NoError(t, f.Close())
	require.Equal(t, int64(1000), m.Used())
	require.NoError(t, p.Unmap())
	require.Zero(t, m.Used())
}

func TestMemMappedFileStaysWhereItIs(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(0)
	f := create(t, m, "a", 100)
	p, err := f.Map(100)
	require.NoError(t, err)
	require.ErrorIs(t, f.Allocate(10_000), errors.ErrUnsupported)
	require.NoError(t, f.Cut(50))
	require.NoError(t, f.Allocate(100))
	write(t, f, 60, "abc")
	require.Equal(t, "abc", string(p.View(60, 3)))
	require.NoError(t, p.Unmap())
	require.NoError(t, f.Allocate(10_000))
	require.Equal(t, "abc", string(content(t, f)[60:63]))
}

func TestMemClone(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(1000)
	require.NoError(t, m.MkdirAll("d/e"))
	f := create(t, m, "d/a", 0)
	write(t, f, 0, "abc")
	m.FailNth(vfs.OpOpen, 1, syscall.EIO)

	c := m.Clone()
	write(t, f, 0, "xyz")
	g, err := c.Open("d/a")
	require.NoError(t, err, "errors are not cloned")
	require.Equal(t, "abc", string(content(t, g)))
	list, err := c.List("d")
	require.NoError(t, err)
	require.Equal(t, []vfs.Entry{{Name: "a", Size: 3}, {Name: "e", Dir: true}}, list)
	require.Equal(t, int64(3), c.Used())
	require.ErrorIs(t, g.Cut(1001), syscall.ENOSPC, "the limit is cloned")
}

func TestMemFailNth(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(0)
	f := create(t, m, "a", 10)
	m.FailNth(vfs.OpWrite, 2, syscall.EIO)
	m.FailNth(vfs.OpWrite, 3, syscall.ENOSPC)
	m.FailNth(vfs.OpSync, 1, syscall.EIO)
	for _, want := range []error{nil, syscall.EIO, syscall.ENOSPC, nil} {
		_, err := f.WriteAt([]byte("x"), 0)
		require.ErrorIs(t, err, want)
	}
	require.ErrorIs(t, f.Sync(), syscall.EIO)
	require.NoError(t, f.Sync())
	require.Equal(t, int64(4), m.Calls(vfs.OpWrite))
}

// TestMemFailEvery breaks each operation once, and sees it work right after.
func TestMemFailEvery(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(0)
	require.NoError(t, m.MkdirAll("gone"))
	f := create(t, m, "a", 4096)
	p, err := f.Map(4096)
	require.NoError(t, err)
	calls := map[vfs.Op]func() error{
		vfs.OpOpen:      func() error { _, err := m.Open("a"); return err },
		vfs.OpCreate:    func() error { _, err := m.Create("b", 1); return err },
		vfs.OpList:      func() error { _, err := m.List("."); return err },
		vfs.OpMkdirAll:  func() error { return m.MkdirAll("d/e") },
		vfs.OpRename:    func() error { return m.Rename("a", "c") },
		vfs.OpRemove:    func() error { return m.Remove("gone") },
		vfs.OpRemoveAll: func() error { return m.RemoveAll("nothing") },
		vfs.OpSyncDir:   func() error { return m.SyncDir("/") },
		vfs.OpFree:      func() error { _, err := m.Free("/"); return err },
		vfs.OpRead:      func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		vfs.OpWrite:     func() error { _, err := f.WriteAt(make([]byte, 1), 0); return err },
		vfs.OpSize:      func() error { _, err := f.Size(); return err },
		vfs.OpSync:      f.Sync,
		vfs.OpCut:       func() error { return f.Cut(4096) },
		vfs.OpAllocate:  func() error { return f.Allocate(4096) },
		vfs.OpForget:    func() error { return f.Forget(0, 0) },
		vfs.OpMap: func() error {
			q, err := f.Map(10)
			if err == nil {
				err = q.Unmap()
			}
			return err
		},
		vfs.OpPopulate: func() error { return p.Populate(0, 1) },
		vfs.OpCommit:   func() error { return p.Commit(0, 0) },
	}
	calls[vfs.OpUnmap] = p.Unmap
	calls[vfs.OpClose] = f.Close
	for op := vfs.OpOpen; op <= vfs.OpClose; op++ {
		call := calls[op]
		require.NotNil(t, call, op)
		m.FailNth(op, 1, syscall.EIO)
		require.ErrorIs(t, call(), syscall.EIO, op)
		require.NoError(t, call(), op)
	}
}

func TestMemRecordAndHook(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(0)
	require.Empty(t, m.Ops())
	m.Record()
	m.Fail(func(c vfs.Call) error {
		if c.Op == vfs.OpWrite && c.Off >= 4 {
			return syscall.ENOSPC
		}
		return nil
	})
	f := create(t, m, "./a", 2)
	write(t, f, 3, "ab")
	_, err := f.WriteAt([]byte("ab"), 4)
	require.ErrorIs(t, err, syscall.ENOSPC)
	m.Fail(nil)
	write(t, f, 4, "ab")
	require.Equal(t, []vfs.Call{
		{Op: vfs.OpCreate, Name: "a", Size: 2},
		{Op: vfs.OpWrite, Name: "a", Off: 3, Size: 2},
		{Op: vfs.OpWrite, Name: "a", Off: 4, Size: 2},
		{Op: vfs.OpWrite, Name: "a", Off: 4, Size: 2},
	}, m.Ops())
	require.Equal(t, "sync folder", vfs.OpSyncDir.String())
	require.Equal(t, "unknown", vfs.Op(200).String())
}

// TestMemConcurrent is for the race detector.
func TestMemConcurrent(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(1 << 20)
	shared := create(t, m, "shared", 0)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			name := string(rune('a' + i))
			p := make([]byte, 100)
			for range 50 {
				f, err := m.Create(name, 100)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = shared.WriteAt(p, int64(i*1000))
				_, _ = shared.ReadAt(p, 500)
				_, _ = m.List(".")
				_ = f.Close()
				_ = m.Remove(name)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(3100), m.Used())
}
