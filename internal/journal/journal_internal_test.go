package journal

import (
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

var errDisk = errors.New("disk on fire")

// brokenFS is the operating system's file system with a call that fails. The
// library writes past it, so its own failures are made by closing it.
type brokenFS struct {
	vfs.FS
	left int // calls that still work; below 0: all
	once bool
}

func (b *brokenFS) fail() error {
	if b.left < 0 {
		return nil
	}
	if b.left--; b.left >= 0 {
		return nil
	}
	if !b.once {
		b.left = 0
	}
	return errDisk
}

func (b *brokenFS) SyncDir(dir string) error {
	if err := b.fail(); err != nil {
		return err
	}
	return b.FS.SyncDir(dir)
}

func (b *brokenFS) Rename(from, to string) error {
	if err := b.fail(); err != nil {
		return err
	}
	return b.FS.Rename(from, to)
}

func (b *brokenFS) RemoveAll(dir string) error {
	if err := b.fail(); err != nil {
		return err
	}
	return b.FS.RemoveAll(dir)
}

func (b *brokenFS) Open(name string) (vfs.File, error) {
	if err := b.fail(); err != nil {
		return nil, err
	}
	return b.FS.Open(name)
}

// TestEveryCallFails lets the nth call fail, once or from then on, in the course
// of open, withdraw, write, write, close. Whatever fails, what was promised
// holds for the next process.
func TestEveryCallFails(t *testing.T) {
	t.Parallel()
	for _, once := range []bool{true, false} {
		failures := 0
		broken := &brokenFS{FS: vfs.OS()}
		for n := 0; broken.left <= 0; n++ { // until there are no more calls
			dir := filepath.Join(t.TempDir(), "journal")
			j, err := Open(dir, nil)
			require.NoError(t, err)
			require.NoError(t, j.Write(writeAll([]byte("zero")), true))
			require.NoError(t, j.Close())

			*broken = brokenFS{FS: vfs.OS(), left: n, once: once}
			withdrawn, written := false, ""
			if j, err := open(broken, dir, nil); err == nil {
				withdrawn = j.Withdraw() == nil
				for _, body := range []string{"one", "two"} {
					if err := j.Write(writeAll([]byte(body)), false); err == nil {
						written = body
					} else {
						require.ErrorIs(t, err, errDisk)
						failures++
					}
				}
				_ = j.Close()
			} else {
				require.ErrorIs(t, err, errDisk)
				failures++
			}

			j, err = Open(dir, nil)
			require.NoError(t, err)
			last := j.Last()
			if withdrawn && last != nil {
				require.False(t, last.Clean, "call %d: withdrawn", n)
			}
			if written == "two" {
				require.NotNil(t, last, "call %d", n)
				require.Equal(t, "two", string(last.Body), "call %d", n)
			}
			if last != nil {
				require.Contains(t, []string{"zero", "one", "two"}, string(last.Body), "call %d", n)
			}
			require.NoError(t, j.Close())
		}
		require.GreaterOrEqual(t, failures, 5)
	}
}

// TestLibraryFails breaks the library in every way it can be broken from here.
func TestLibraryFails(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(j *Journal){
		"error": func(j *Journal) { _ = j.lib.log.Close() },
		"panic": func(j *Journal) { j.lib.log = nil },
	} {
		for _, when := range []string{"chunks", "rest", "withdraw", "close"} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				j, err := Open(dir, nil)
				require.NoError(t, err)
				require.NoError(t, j.Write(writeAll([]byte("old")), true))
				switch when {
				case "chunks":
					err = j.Write(func(w io.Writer) error {
						breakIt(j)
						_, err := w.Write(make([]byte, 3*maxChunk))
						require.Error(t, err)
						return nil
					}, true)
					require.Error(t, err)
				case "rest":
					breakIt(j)
					require.Error(t, j.Write(writeAll([]byte("new")), true))
				case "withdraw":
					breakIt(j)
					require.NoError(t, j.Withdraw(), "the checkpoint is discarded instead")
				case "close":
					breakIt(j)
					require.Error(t, j.Close())
					require.NoError(t, j.Close())
				}
				k, err := Open(dir, nil)
				require.NoError(t, err)
				if when == "withdraw" {
					require.Nil(t, k.Last())
				} else {
					require.Equal(t, "old", string(k.Last().Body))
				}
				require.NoError(t, k.Close())
				if when != "close" {
					require.NoError(t, j.Write(writeAll([]byte("next")), true))
					require.NoError(t, j.Close())
				}
			})
		}
	}
}

// TestClosingFails breaks the library between the chunks and the closing record:
// nobody can say what is on disk then, so the whole generation goes.
func TestClosingFails(t *testing.T) {
	t.Parallel()
	for _, withdraw := range []bool{true, false} {
		dir := t.TempDir()
		broken := &brokenFS{FS: vfs.OS(), left: -1}
		j, err := open(broken, dir, nil)
		require.NoError(t, err)
		require.NoError(t, j.Write(writeAll([]byte("old")), true))
		err = j.Write(func(w io.Writer) error {
			broken.left, broken.once = 1, true // chunks are synced, the closing record is not
			_, err := w.Write([]byte("new"))
			return err
		}, true)
		require.ErrorIs(t, err, errDisk)
		if withdraw {
			require.NoError(t, j.Withdraw())
		}
		require.NoError(t, j.Close())
		k, err := Open(dir, nil)
		require.NoError(t, err)
		require.Nil(t, k.Last())
		require.NoError(t, k.Close())
	}
}

// TestWithdrawalFails: a withdrawal that may not be on disk is none, so the
// checkpoint goes with its clean mark.
func TestWithdrawalFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := &brokenFS{FS: vfs.OS(), left: -1}
	j, err := open(broken, dir, nil)
	require.NoError(t, err)
	require.NoError(t, j.Write(writeAll([]byte("old")), true))
	broken.left, broken.once = 0, true // its sync
	require.NoError(t, j.Withdraw())
	require.NoError(t, j.Close())
	k, err := Open(dir, nil)
	require.NoError(t, err)
	require.Nil(t, k.Last())
	require.NoError(t, k.Close())
}

// TestUnreadableIsDiscarded: what cannot be read now must not come back, clean
// mark and all, once it can be.
func TestUnreadableIsDiscarded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, j.Write(writeAll([]byte("old")), true))
	require.NoError(t, j.Close())

	j, err = open(&brokenFS{FS: vfs.OS(), left: 1, once: true}, dir, nil)
	require.NoError(t, err)
	require.Nil(t, j.Last())
	require.ErrorIs(t, j.Discarded(), errDisk)
	require.NoError(t, j.Close())

	j, err = Open(dir, nil)
	require.NoError(t, err)
	require.Nil(t, j.Last())
	require.NoError(t, j.Close())
}

func TestOpenLibraryChecksItsEnd(t *testing.T) {
	t.Parallel()
	gen := twoCheckpoints(t, t.TempDir(), []byte("a"), []byte("b"))
	_, err := openLibrary(gen, 4)
	require.ErrorContains(t, err, "ends with entry 4")
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	j, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	err = j.Write(func(w io.Writer) error {
		w.(*writing).length = maxBody - 1 // as if it had written that much
		_, err := w.Write([]byte("x"))
		require.NoError(t, err)
		_, err = w.Write([]byte("y"))
		require.ErrorIs(t, err, ErrTooLarge)
		return nil // a body that ignores it does not make half a checkpoint whole
	}, true)
	require.ErrorIs(t, err, ErrTooLarge)
	require.NoError(t, j.Write(writeAll([]byte("small")), true))
	require.NoError(t, j.Close())
}
