package vfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

func TestLockFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "LOCK")
	// What a process that was killed leaves behind is no lock.
	require.NoError(t, os.WriteFile(path, []byte("1234567890123"), 0o600))

	l, err := vfs.LockFile(path)
	require.NoError(t, err)
	_, err = vfs.LockFile(path)
	var locked *vfs.LockedError
	require.ErrorAs(t, err, &locked)
	require.Equal(t, &vfs.LockedError{Path: path, PID: os.Getpid()}, locked)
	require.Contains(t, err.Error(), "locked by process")
	require.NotContains(t, (&vfs.LockedError{Path: path}).Error(), "process")

	require.NoError(t, l.Unlock())
	require.NoError(t, l.Unlock())
	l, err = vfs.LockFile(path)
	require.NoError(t, err)
	require.NoError(t, l.Unlock())

	_, err = vfs.LockFile(filepath.Join(path, "below"))
	require.Error(t, err)
	require.NotErrorAs(t, err, &locked)
}
