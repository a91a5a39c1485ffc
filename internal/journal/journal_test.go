package journal_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/journal"
	"github.com/pocketmq/mq/internal/vfs"
)

var errBody = errors.New("no more to say")

// noise returns n bytes that differ with every seed and never repeat.
func noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	p := make([]byte, n)
	_, _ = r.Read(p)
	return p
}

func open(t *testing.T, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close()) })
	return j
}

// body writes p in pieces of odd sizes.
func body(p []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		for rest := p; len(rest) > 0; {
			n := min(len(rest), 70_001)
			if _, err := w.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}
}

// requireLast checks what a fresh Open of dir finds.
func requireLast(t *testing.T, dir string, want []byte, clean bool) {
	t.Helper()
	j, err := journal.Open(dir, nil)
	require.NoError(t, err)
	last := j.Last()
	require.NotNil(t, last)
	require.True(t, bytes.Equal(want, last.Body), "body")
	require.Equal(t, clean, last.Clean, "clean")
	require.NoError(t, j.Discarded())
	require.NoError(t, j.Close())
}

// used returns the bytes of all files below dir, and how many there are.
func used(t *testing.T, dir string) (size int64, files int) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		size += info.Size()
		files++
		return err
	}))
	return size, files
}

// generations returns the folders below dir.
func generations(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	return paths
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

func TestNew(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store", "journal")
	j := open(t, dir)
	require.Nil(t, j.Last())
	require.NoError(t, j.Discarded())
	require.NoError(t, j.Withdraw())
	require.NoError(t, j.Close())
	require.NoError(t, j.Close())
	require.ErrorIs(t, j.Withdraw(), journal.ErrClosed)
	require.ErrorIs(t, j.Write(body(nil), true), journal.ErrClosed)
	require.Nil(t, open(t, dir).Last())
}

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const chunk = 256 << 10
	for i, size := range []int{10, 0, 1, chunk - 1, chunk, chunk + 1, 5<<20 + 3, 3 * chunk, 7} {
		want := noise(uint64(i), size)
		j := open(t, dir)
		require.NoError(t, j.Write(body(want), i%2 == 0))
		require.NoError(t, j.Close())
		requireLast(t, dir, want, i%2 == 0)

		got, files := used(t, dir)
		require.LessOrEqual(t, got, int64(size+4096), "older checkpoints are dropped")
		require.LessOrEqual(t, files, size>>20+2)
		require.Len(t, generations(t, dir), 1)
	}
}

func TestWriteManyInOneJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	for i := range 30 {
		want := noise(uint64(i), i*100_003)
		require.NoError(t, j.Write(body(want), true))
		if i%10 == 9 {
			requireLast(t, copyOf(t, dir), want, true)
		}
		got, _ := used(t, dir)
		require.LessOrEqual(t, got, int64(len(want)+4096))
	}
	require.Nil(t, j.Last(), "what Open found, and it found nothing")
}

func TestLastAndForget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, open(t, dir).Write(body([]byte("one")), true))
	j := open(t, copyOf(t, dir))
	last := j.Last()
	require.NoError(t, j.Write(body([]byte("two")), false))
	require.Equal(t, &journal.Checkpoint{Clean: true, Body: []byte("one")}, last)
	require.Equal(t, last, j.Last())
	j.Forget()
	require.Nil(t, j.Last())
}

// TestDiscard: what was discarded is not found again, and the journal goes on.
func TestDiscard(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, open(t, dir).Write(body([]byte("one")), true))
	j := open(t, dir)
	require.NoError(t, j.Discard())
	require.Nil(t, j.Last())
	require.Nil(t, open(t, copyOf(t, dir)).Last())
	require.NoError(t, j.Discard())
	require.NoError(t, j.Withdraw())
	require.NoError(t, j.Write(body([]byte("two")), true))
	requireLast(t, copyOf(t, dir), []byte("two"), true)
	require.NoError(t, j.Close())
	require.ErrorIs(t, j.Discard(), journal.ErrClosed)
}

func TestWithdraw(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := noise(1, 1000)
	require.NoError(t, open(t, dir).Write(body(want), true))

	j := open(t, dir)
	require.True(t, j.Last().Clean)
	before, _ := used(t, dir)
	require.NoError(t, j.Withdraw())
	require.False(t, j.Last().Clean)
	require.Equal(t, want, j.Last().Body)
	once, _ := used(t, dir)
	require.Greater(t, once, before)
	require.NoError(t, j.Withdraw())
	twice, _ := used(t, dir)
	require.Equal(t, once, twice, "there is nothing to withdraw")
	requireLast(t, copyOf(t, dir), want, false) // as after kill -9
	require.NoError(t, j.Close())
	requireLast(t, dir, want, false)

	// A clean one takes over from a withdrawn one.
	j = open(t, dir)
	require.NoError(t, j.Write(body([]byte("x")), true))
	requireLast(t, copyOf(t, dir), []byte("x"), true)
	require.NoError(t, j.Withdraw())
	requireLast(t, copyOf(t, dir), []byte("x"), false)
}

func TestWithdrawAfterUncleanWritesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	require.NoError(t, j.Write(body([]byte("x")), false))
	before, _ := used(t, dir)
	require.NoError(t, j.Withdraw())
	after, _ := used(t, dir)
	require.Equal(t, before, after)
}

// TestInterrupted kills the process, so to speak, while a body is written: the
// chunks that are there already are part of nothing.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, 3 << 20} {
		dir := t.TempDir()
		j := open(t, dir)
		for _, old := range [][]byte{nil, []byte("old")} {
			if old != nil {
				require.NoError(t, j.Write(body(old), true))
			}
			var killed string
			require.NoError(t, j.Write(func(w io.Writer) error {
				err := body(noise(1, size))(w)
				killed = copyOf(t, dir)
				return err
			}, true))
			if old != nil { // it may have ended while it dropped the front, too
				folders, err := filepath.Glob(filepath.Join(killed, "0*"))
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(folders[0], "00000000000000000002.START.TEMP"), nil, 0o600))
			}
			x, err := journal.Examine(vfs.OS(), killed)
			require.NoError(t, err)
			for _, flaw := range x.Flaws {
				require.False(t, flaw.Damage, "%v: nobody damaged it", flaw.Err)
			}
			require.Equal(t, old == nil, x.Last == nil)
			k := open(t, killed)
			if old == nil {
				require.Nil(t, k.Last())
				require.ErrorContains(t, k.Discarded(), "no complete checkpoint")
			} else {
				require.Equal(t, old, k.Last().Body)
			}
			require.NoError(t, k.Write(body([]byte("next")), true))
			require.NoError(t, k.Close())
			requireLast(t, killed, []byte("next"), true)
			require.Len(t, generations(t, killed), 1)
		}
	}
}

func TestBodyFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	require.NoError(t, j.Write(body([]byte("old")), false))
	for name, fail := range map[string]func(io.Writer) error{
		"at once": func(io.Writer) error { return errBody },
		"later": func(w io.Writer) error {
			_ = body(noise(1, 2<<20))(w)
			return errBody
		},
	} {
		require.ErrorIs(t, j.Write(fail, true), errBody, name)
		requireLast(t, copyOf(t, dir), []byte("old"), false)
	}
	require.PanicsWithValue(t, "oops", func() { _ = j.Write(func(io.Writer) error { panic("oops") }, true) })
	requireLast(t, copyOf(t, dir), []byte("old"), false)

	var kept io.Writer
	require.NoError(t, j.Write(func(w io.Writer) error { kept = w; return body([]byte("new"))(w) }, true))
	_, err := kept.Write([]byte("late"))
	require.ErrorIs(t, err, journal.ErrClosed)
	require.NoError(t, j.Close())
	requireLast(t, dir, []byte("new"), true)
	require.Len(t, generations(t, dir), 1)
}

// TestFolderBreaks takes the folder away below an open journal: that Write fails
// and the next one works.
func TestFolderBreaks(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 10, "several files": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "journal")
			j := open(t, dir)
			require.NoError(t, j.Write(body([]byte("old")), false))

			require.NoError(t, os.RemoveAll(generations(t, dir)[0]))
			require.Error(t, j.Write(body(noise(1, size)), true))
			require.NoError(t, j.Write(body(noise(2, size)), true))
			requireLast(t, copyOf(t, dir), noise(2, size), true)

			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.WriteFile(dir, []byte("not a folder"), 0o600))
			require.Error(t, j.Write(body(noise(3, size)), true))
			require.Error(t, j.Write(body(noise(3, size)), true))
			require.NoError(t, os.Remove(dir))
			require.NoError(t, j.Write(body(noise(4, size)), true))
			require.NoError(t, j.Close())
			requireLast(t, dir, noise(4, size), true)
		})
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := journal.Open(file, nil)
	require.Error(t, err)
	_, err = journal.Open(filepath.Join(file, "below"), nil)
	require.Error(t, err)
}

// TestForeign leaves things in the folder that were never written by a journal.
func TestForeign(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := noise(1, 100)
	require.NoError(t, open(t, dir).Write(body(want), true))
	gen := generations(t, dir)[0]
	for _, name := range []string{"README", "00000000000000000009.dead/x", "00000000000000000008/x", "99999999999999999999/x", "00000000000000000000/x"} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte("foreign"), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "00000000000000000007"), []byte("a file"), 0o600))
	requireLast(t, dir, want, true)
	left := generations(t, dir)
	require.Equal(t, []string{gen, filepath.Join(dir, "99999999999999999999"), filepath.Join(dir, "README")}, left)

	require.NoError(t, os.WriteFile(filepath.Join(gen, "README"), nil, 0o600))
	j := open(t, dir)
	require.Equal(t, &journal.Checkpoint{Body: want}, j.Last(), "clean no more: somebody was here")
	require.NoError(t, j.Write(body(want), true))
	require.NoError(t, j.Close())
	requireLast(t, dir, want, true)
}
