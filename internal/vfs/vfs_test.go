package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// eachFS runs a test on every file system, in an empty folder of its own.
func eachFS(t *testing.T, test func(t *testing.T, fsys vfs.FS, dir string)) {
	t.Run("os", func(t *testing.T) {
		t.Parallel()
		test(t, vfs.OS(), t.TempDir())
	})
	t.Run("mem", func(t *testing.T) {
		t.Parallel()
		m := vfs.NewMem(1 << 20)
		require.NoError(t, m.MkdirAll("store"))
		test(t, m, "store")
	})
	t.Run("overlay", func(t *testing.T) {
		t.Parallel()
		test(t, vfs.Overlay(vfs.OS()), t.TempDir())
	})
}

func create(t *testing.T, fsys vfs.FS, name string, size int64) vfs.File {
	t.Helper()
	f, err := fsys.Create(name, size)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func content(t *testing.T, f vfs.File) []byte {
	t.Helper()
	size, err := f.Size()
	require.NoError(t, err)
	got := make([]byte, size)
	_, err = f.ReadAt(got, 0)
	require.NoError(t, err)
	return got
}

func write(t *testing.T, f vfs.File, off int64, p string) {
	t.Helper()
	n, err := f.WriteAt([]byte(p), off)
	require.NoError(t, err)
	require.Equal(t, len(p), n)
}

func TestCreate(t *testing.T) {
	t.Parallel()
	eachFS(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "a")
		f := create(t, fsys, name, 10_000)
		require.Equal(t, make([]byte, 10_000), content(t, f))

		_, err := fsys.Create(name, 1)
		require.ErrorIs(t, err, fs.ErrExist)
		_, err = fsys.Create(filepath.Join(dir, "missing", "a"), 1)
		require.ErrorIs(t, err, fs.ErrNotExist)

		empty := create(t, fsys, filepath.Join(dir, "b"), 0)
		size, err := empty.Size()
		require.NoError(t, err)
		require.Zero(t, size)
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	eachFS(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "a")
		_, err := fsys.Open(name)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.Open(dir)
		require.Error(t, err, "a folder")

		write(t, create(t, fsys, name, 0), 3, "xyz")
		f, err := fsys.Open(name)
		require.NoError(t, err)
		require.Equal(t, "\x00\x00\x00xyz", string(content(t, f)))
		write(t, f, 0, "abc")
		require.Equal(t, "abcxyz", string(content(t, f)))

		require.NoError(t, f.Close())
		require.ErrorIs(t, f.Close(), fs.ErrClosed)
		_, err = f.ReadAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, fs.ErrClosed)
		require.ErrorIs(t, f.Sync(), fs.ErrClosed)
	})
}

func TestReadAtEnd(t *testing.T) {
	t.Parallel()
	eachFS(t, func(t *testing.T, fsys vfs.FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "a"), 0)
		write(t, f, 0, "abc")
		p := make([]byte, 5)
		n, err := f.ReadAt(p, 1)
		require.Equal(t, io.EOF, err)
		require.Equal(t, "bc", string(p[:n]))
		n, err = f.ReadAt(p, 100)
		require.Equal(t, io.EOF, err)
		require.Zero(t, n)
		_, err = f.ReadAt(p, -1)
		require.Error(t, err)
		_, err = f.WriteAt(p, -1)
		require.Error(t, err)
	})
}

func TestCutAndAllocate(t *testing.T) {
	t.Parallel()
	eachFS(t, func(t *testing.T, fsys vfs.FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "a"), 0)
		write(t, f, 0, strings.Repeat("x", 9000))

		require.NoError(t, f.Cut(3))
		require.NoError(t, f.Allocate(9000))
		want := append([]byte("xxx"), make([]byte, 8997)...)
		require.True(t, bytes.Equal(want, content(t, f)), "what was cut away must not come back")

		require.NoError(t, f.Allocate(2))
		require.Equal(t, "xx", string(content(t, f)))
		require.NoError(t, f.Cut(4))
		require.Equal(t, "xx\x00\x00", string(content(t, f)))
		require.Error(t, f.Cut(-1))
		require.NoError(t, f.Sync())
		require.NoError(t, f.Forget(0, 0))
	})
}

func TestNames(t *testing.T) {
	t.Parallel()
	eachFS(t, func(t *testing.T, fsys vfs.FS, dir string) {
		in := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
		_, err := fsys.List(in("missing"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.Error(t, fsys.SyncDir(in("missing")))

		require.NoError(t, fsys.MkdirAll(in("d", "e")))
		require.NoError(t, fsys.MkdirAll(in("d", "e")))
		write(t, create(t, fsys, in("d", "z"), 0), 0, "zz")
		write(t, create(t, fsys, in("d", "a"), 0), 0, "a")
		list, err := fsys.List(in("d"))
		require.NoError(t, err)
		require.Equal(t, []vfs.Entry{{Name: "a", Size: 1}, {Name: "e", Dir: true}, {Name: "z", Size: 2}}, list)
		require.NoError(t, fsys.SyncDir(in("d")))

		require.NoError(t, fsys.Rename(in("d", "z"), in("d", "a")))
		require.ErrorIs(t, fsys.Rename(in("d", "z"), in("d", "q")), fs.ErrNotExist)
		require.NoError(t, fsys.Rename(in("d"), in("f")))
		f, err := fsys.Open(in("f", "a"))
		require.NoError(t, err)
		defer f.Close()
		require.Equal(t, "zz", string(content(t, f)))
		require.Error(t, fsys.Rename(in("f"), in("f", "e", "f")), "into itself")

		require.Error(t, fsys.Remove(in("f")), "not empty")
		require.NoError(t, fsys.Remove(in("f", "e")))
		require.NoError(t, fsys.Remove(in("f", "a")))
		require.Equal(t, "zz", string(content(t, f)), "an open file stays")
		require.NoError(t, fsys.Remove(in("f")))
		require.ErrorIs(t, fsys.Remove(in("f")), fs.ErrNotExist)

		require.NoError(t, fsys.MkdirAll(in("g", "h", "i")))
		create(t, fsys, in("g", "h", "k"), 7)
		require.NoError(t, fsys.RemoveAll(in("g")))
		require.NoError(t, fsys.RemoveAll(in("g")))
		list, err = fsys.List(dir)
		require.NoError(t, err)
		require.Empty(t, list)
	})
}

func TestFree(t *testing.T) {
	t.Parallel()
	eachFS(t, func(t *testing.T, fsys vfs.FS, dir string) {
		free, err := fsys.Free(dir)
		require.NoError(t, err)
		require.Positive(t, free)
	})
}

// mappings runs a test on a mapping of a 64 KiB file of every kind.
func mappings(t *testing.T, test func(t *testing.T, f vfs.File, m vfs.Mapping)) {
	eachFS(t, func(t *testing.T, fsys vfs.FS, dir string) {
		for _, kind := range []string{"mapped", "unmapped"} {
			t.Run(kind, func(t *testing.T) {
				f := create(t, fsys, filepath.Join(dir, kind), 64<<10)
				m := vfs.Unmapped(f)
				if kind == "mapped" {
					var err error
					m, err = f.Map(64 << 10)
					if errors.Is(err, errors.ErrUnsupported) {
						t.Skip("no mapping here")
					}
					require.NoError(t, err)
				}
				test(t, f, m)
				require.NoError(t, m.Unmap())
				require.NoError(t, m.Unmap())
			})
		}
	})
}

func TestMappingStores(t *testing.T) {
	t.Parallel()
	mappings(t, func(t *testing.T, f vfs.File, m vfs.Mapping) {
		want := make([]byte, 64<<10)
		for i, off := range []int64{0, 5, 4090, 8192, 60_000} {
			p := []byte(strings.Repeat(string(rune('a'+i)), 100+i))
			b := m.Reserve(off, int64(len(p))+8)
			require.Len(t, b, len(p)+8)
			require.Equal(t, len(b), cap(b), "an append must not reach beyond the reserved bytes")
			copy(b, p)
			require.NoError(t, m.Commit(off, int64(len(p))))
			copy(want[off:], p)
			if v := m.View(off, int64(len(p))); v != nil {
				require.Equal(t, p, v)
			}
		}
		require.NoError(t, f.Sync())
		got := content(t, f)
		require.True(t, bytes.Equal(want, got))
	})
}

func TestMappingPopulateKeepsBytes(t *testing.T) {
	t.Parallel()
	mappings(t, func(t *testing.T, f vfs.File, m vfs.Mapping) {
		write(t, f, 5000, "here")
		require.NoError(t, m.Populate(4096, 8192))
		require.NoError(t, m.Populate(1, 1))
		require.NoError(t, m.Populate(60_000, 1<<20), "beyond the end")
		require.NoError(t, m.Populate(0, 0))
		require.Equal(t, "here", string(content(t, f)[5000:5004]))
	})
}

func TestMappingOutlivesFile(t *testing.T) {
	t.Parallel()
	eachFS(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := filepath.Join(dir, "a")
		f := create(t, fsys, name, 8192)
		_, err := f.Map(8193)
		require.Error(t, err, "larger than the file")
		_, err = f.Map(0)
		require.Error(t, err)
		m, err := f.Map(8192)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip("no mapping here")
		}
		require.NoError(t, err)
		require.NoError(t, f.Close())
		copy(m.Reserve(0, 3), "abc")
		require.NoError(t, m.Commit(0, 3))
		again, err := fsys.Open(name)
		require.NoError(t, err)
		defer again.Close()
		require.Equal(t, "abc", string(content(t, again)[:3]))
		require.NoError(t, fsys.Remove(name))
		require.Equal(t, "abc", string(m.View(0, 3)))
		require.NoError(t, m.Unmap())
	})
}

func TestUnmappedGivesLargeBufferBack(t *testing.T) {
	mem := vfs.NewMem(0)
	m := vfs.Unmapped(create(t, mem, "a", 0))
	for _, n := range []int64{10, 3 << 20, 1, 5000} {
		require.Len(t, m.Reserve(0, n), int(n))
		require.NoError(t, m.Commit(0, n))
	}
	require.Error(t, m.Commit(0, 1<<30), "never reserved")

	m.Reserve(0, 100)
	require.NoError(t, m.Commit(0, 100))
	require.Zero(t, testing.AllocsPerRun(100, func() { // so this test is not parallel
		m.Reserve(0, 100)
		_ = m.Commit(0, 100)
	}))
}

func TestOSRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	require.NoError(t, os.WriteFile(target, nil, 0o600))
	link := filepath.Join(dir, "link")
	if os.Symlink(target, link) != nil || !noFollowHere {
		t.Skip("no symbolic links, or they are always followed")
	}
	_, err := vfs.OS().Open(link)
	require.Error(t, err)
	_, err = vfs.OS().Create(link, 1)
	require.Error(t, err)
	_, err = vfs.LockFile(link)
	require.Error(t, err)
}

func TestOSCreateLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "a")
	_, err := vfs.OS().Create(name, -1)
	require.Error(t, err)
	_, err = os.Stat(name)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestOSModes(t *testing.T) {
	t.Parallel()
	if !noFollowHere {
		t.Skip("no modes here")
	}
	dir := filepath.Join(t.TempDir(), "d", "e")
	require.NoError(t, vfs.OS().MkdirAll(dir))
	create(t, vfs.OS(), filepath.Join(dir, "a"), 1)
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	info, err = os.Stat(filepath.Join(dir, "a"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}
