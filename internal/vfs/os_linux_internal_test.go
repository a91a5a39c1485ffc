//go:build linux

package vfs

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// What newer kernels and better file systems never reach.

func TestTouch(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	f, err := OS().Create(filepath.Join(t.TempDir(), "a"), int64(4*page))
	require.NoError(t, err)
	defer f.Close()
	m, err := f.Map(int64(4 * page))
	require.NoError(t, err)
	defer m.Unmap()

	copy(m.Reserve(int64(page), 3), "abc")
	require.NoError(t, touch(m.(*mapped).data, page))
	require.Equal(t, "abc", string(m.View(int64(page), 3)))

	require.NoError(t, f.Cut(int64(page)))
	require.ErrorIs(t, touch(m.(*mapped).data, page), syscall.EFAULT, "a fault is an error, not the end of the process")
	require.ErrorIs(t, m.Populate(int64(2*page), 1), syscall.EFAULT)
}

func TestWriteZeros(t *testing.T) {
	t.Parallel()
	f, err := OS().Create(filepath.Join(t.TempDir(), "a"), 0)
	require.NoError(t, err)
	defer f.Close()
	want := append(bytes.Repeat([]byte("x"), 1000), make([]byte, 600_000)...)
	_, err = f.WriteAt(bytes.Repeat([]byte("x"), 2000), 0)
	require.NoError(t, err)
	require.NoError(t, writeZeros(f.(*osFile), 1000, 601_000))
	got := make([]byte, len(want))
	_, err = f.ReadAt(got, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

// TestAllocateAsksFirst wants more than any disk has: it must fail at once, not
// when the disk is full.
func TestAllocateAsksFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	free, err := OS().Free(dir)
	require.NoError(t, err)
	if free > 1<<50 {
		t.Skip("this file system has no bounds")
	}
	_, err = OS().Create(filepath.Join(dir, "a"), 1<<51)
	require.ErrorIs(t, err, syscall.ENOSPC)
	list, err := OS().List(dir)
	require.NoError(t, err)
	require.Empty(t, list)
}

// A child that is being started has a copy of every descriptor for a moment.
// Catches: a store that was closed and cannot be opened at once.
func TestUnlockedInSpiteOfCopies(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "LOCK")
	l, err := LockFile(path)
	require.NoError(t, err)
	held, err := syscall.Dup(int(l.file.Fd()))
	require.NoError(t, err)
	defer syscall.Close(held)
	require.NoError(t, l.Unlock())
	l, err = LockFile(path)
	require.NoError(t, err)
	require.NoError(t, l.Unlock())
}
