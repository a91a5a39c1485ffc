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
