package vfs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

func TestReadOnly(t *testing.T) {
	t.Parallel()
	for name, under := range map[string]vfs.FS{"os": vfs.OS(), "memory": vfs.NewMem(0)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, under.MkdirAll(dir))
			path := filepath.Join(dir, "file")
			f, err := under.Create(path, 4096)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte("stored"), 0)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			if name == "os" {
				require.NoError(t, os.Chmod(path, 0o400))
			}

			ro := vfs.ReadOnly(under)
			f, err = ro.Open(path)
			require.NoError(t, err)
			b := make([]byte, 6)
			_, err = f.ReadAt(b, 0)
			require.NoError(t, err)
			require.Equal(t, "stored", string(b))
			_, err = f.WriteAt([]byte("x"), 0)
			require.ErrorIs(t, err, fs.ErrPermission)
			_, err = f.Map(4096)
			require.ErrorIs(t, err, fs.ErrPermission)
			for _, err := range []error{f.Sync(), f.Cut(0), f.Allocate(8192)} {
				require.ErrorIs(t, err, fs.ErrPermission)
			}
			require.NoError(t, f.Close())

			_, err = ro.Create(path+"2", 1)
			require.ErrorIs(t, err, fs.ErrPermission)
			for _, err := range []error{
				ro.MkdirAll(path + "3"), ro.Rename(path, path+"4"), ro.Remove(path), ro.RemoveAll(dir), ro.SyncDir(dir),
			} {
				require.ErrorIs(t, err, fs.ErrPermission)
			}
			list, err := ro.List(dir)
			require.NoError(t, err)
			require.Equal(t, []vfs.Entry{{Name: "file", Size: 4096}}, list)
		})
	}
}

// What is below an overlay stays as it is, whatever happens on it.
func TestOverlayLeavesWhatIsBelow(t *testing.T) {
	t.Parallel()
	under, dir := vfs.OS(), t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"cut", "written", "removed", "renamed", "folder/a", "folder/b"} {
		require.NoError(t, under.MkdirAll(filepath.Dir(in(name))))
		write(t, create(t, under, in(name), 0), 0, "as it was")
	}
	before := tree(t, dir)

	o := vfs.Overlay(under)
	open := func(name string) vfs.File {
		f, err := o.Open(in(name))
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	cut, reader := open("cut"), open("cut")
	require.NoError(t, cut.Cut(5))
	require.Equal(t, "as it", string(content(t, reader)), "others see it")
	require.NoError(t, cut.Cut(7))
	require.Equal(t, "as it\x00\x00", string(content(t, reader)), "what was cut away does not come back")
	written := open("written")
	write(t, open("written"), 0, "AS")
	require.Equal(t, "AS it was", string(content(t, written)))
	require.NoError(t, o.Remove(in("removed")))
	_, err := o.Open(in("removed"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, o.Rename(in("renamed"), in("to")))
	require.Equal(t, "as it was", string(content(t, open("to"))))
	require.Error(t, o.Remove(in("folder")))
	require.NoError(t, o.RemoveAll(in("folder")))
	_, err = o.List(in("folder"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, o.MkdirAll(in("folder")))
	write(t, create(t, o, in("folder/b"), 0), 0, "anew")
	list, err := o.List(in("folder"))
	require.NoError(t, err)
	require.Equal(t, []vfs.Entry{{Name: "b", Size: 4}}, list)
	list, err = o.List(dir)
	require.NoError(t, err)
	require.Equal(t, []vfs.Entry{{Name: "cut", Size: 7}, {Name: "folder", Dir: true}, {Name: "to", Size: 9}, {Name: "written", Size: 9}}, list)

	require.Equal(t, before, tree(t, dir))
}

// tree returns the files below dir and what is in them.
func tree(t *testing.T, dir string) map[string]string {
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	}))
	return files
}
