package crashfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/crashfs"
	"github.com/pocketmq/mq/internal/vfs"
)

const page = 4096

// cuts is how many power cuts a test tries from one state: each outcome that the
// rules allow is to be seen, and no other.
const cuts = 300

// outcomes returns what was seen after power cuts, sorted.
func outcomes(f *crashfs.FS, look func(*crashfs.FS) string) []string {
	seen := make(map[string]bool)
	for seed := range uint64(cuts) {
		seen[look(f.Crash(rand.New(rand.NewPCG(seed, 1))))] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// tree lists the files of a file system, each with what it begins with.
func tree(f *crashfs.FS) string {
	var all []string
	var walk func(dir string)
	walk = func(dir string) {
		list, err := f.List(dir)
		if err != nil {
			all = append(all, err.Error())
		}
		for _, e := range list {
			name := filepath.Join(dir, e.Name)
			if e.Dir {
				all = append(all, filepath.ToSlash(name)+"/")
				walk(name)
				continue
			}
			b, err := read(f, name)
			if err != nil {
				b = []byte(err.Error())
			}
			text, _, _ := bytes.Cut(b, []byte{0})
			all = append(all, filepath.ToSlash(name)+":"+string(text))
		}
	}
	walk(".")
	return strings.Join(all, " ")
}

func read(f vfs.FS, name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	_, err = file.ReadAt(b, 0)
	if size == 0 {
		err = nil
	}
	return b, errors.Join(err, file.Close())
}

// create makes a file with a text at its beginning.
func create(t *testing.T, f vfs.FS, name, text string, size int64) vfs.File {
	t.Helper()
	file, err := f.Create(name, size)
	require.NoError(t, err)
	write(t, file, text, 0)
	return file
}

func write(t *testing.T, file vfs.File, text string, off int64) {
	t.Helper()
	n, err := file.WriteAt([]byte(text), off)
	require.NoError(t, err)
	require.Equal(t, len(text), n)
}

// durable makes a file that survives everything.
func durable(t *testing.T, f *crashfs.FS, name, text string, size int64) vfs.File {
	t.Helper()
	file := create(t, f, name, text, size)
	require.NoError(t, file.Sync())
	require.NoError(t, f.SyncDir(filepath.Dir(name)))
	return file
}

func store(t *testing.T, m vfs.Mapping, text string, off int64) {
	t.Helper()
	copy(m.Reserve(off, int64(len(text))), text)
	require.NoError(t, m.Commit(off, int64(len(text))))
}

func mapped(t *testing.T, file vfs.File, size int64) vfs.Mapping {
	t.Helper()
	m, err := file.Map(size)
	require.NoError(t, err)
	return m
}

func TestWhatIsSyncedStays(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	require.NoError(t, f.MkdirAll("a/b"))
	require.NoError(t, f.SyncDir("."))
	require.NoError(t, f.SyncDir("a"))
	file := durable(t, f, "a/b/c", "one", 2*page)
	m := mapped(t, file, 2*page)
	store(t, m, "two", page)
	require.NoError(t, file.Sync())
	assert.Equal(t, []string{"a/ a/b/ a/b/c:one|two"}, outcomes(f, func(f *crashfs.FS) string {
		b, err := read(f, "a/b/c")
		require.NoError(t, err)
		return tree(f) + "|" + string(b[page:page+3])
	}))
}

// Catches: a sync of a range that makes more durable than it says, or less.
func TestSyncOfARange(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := durable(t, f, "a", "....", 3*page)
	m := mapped(t, file, 3*page)
	for p := range int64(3) {
		store(t, m, "new", p*page)
	}
	require.NoError(t, m.Sync(page+10, 1))
	marks := func(f *crashfs.FS) string {
		b, err := read(f, "a")
		require.NoError(t, err)
		return fmt.Sprintf("%q", []byte{b[0], b[page], b[2*page]})
	}
	assert.Equal(t, []string{`".n\x00"`, `".nn"`, `"nn\x00"`, `"nnn"`}, outcomes(f, marks))
	f = f.Kill()
	file, err := f.Open("a")
	require.NoError(t, err)
	require.NoError(t, mapped(t, file, 3*page).Sync(0, 3*page))
	assert.Equal(t, []string{`"nnn"`}, outcomes(f, marks))
}

func TestSyncedBytesWithoutAName(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	require.NoError(t, create(t, f, "a", "text", page).Sync())
	assert.Equal(t, []string{"", "a:text"}, outcomes(f, tree))
	f = f.Kill() // to go on with, for the power is gone
	require.NoError(t, f.SyncDir("."))
	assert.Equal(t, []string{"a:text"}, outcomes(f, tree))
}

func TestNameWithoutBytes(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := create(t, f, "a", "text", page)
	require.NoError(t, f.SyncDir("."))
	assert.Equal(t, []string{"0", "4096", "4096 text"}, outcomes(f, func(f *crashfs.FS) string {
		b, err := read(f, "a")
		require.NoError(t, err)
		switch {
		case len(b) == 0:
			return "0"
		case b[0] == 0:
			return "4096"
		}
		return "4096 " + string(b[:4])
	}), "size and bytes are apart")
	require.ErrorIs(t, file.Sync(), crashfs.ErrPowerCut)
}

func TestFolderWithoutAName(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	require.NoError(t, f.MkdirAll("a"))
	durable(t, f, "a/b", "text", page)
	assert.Equal(t, []string{"", "a/ a/b:text"}, outcomes(f, tree))
}

func TestRename(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	durable(t, f, "a", "new", page)
	durable(t, f, "b", "old", page)
	require.NoError(t, f.Rename("a", "b"))
	assert.Equal(t, []string{"a:new b:old", "b:new"}, outcomes(f, tree), "both names or none")
	f = f.Kill()
	require.NoError(t, f.SyncDir("."))
	assert.Equal(t, []string{"b:new"}, outcomes(f, tree))
}

func TestRenameBetweenFolders(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	require.NoError(t, f.MkdirAll("x"))
	require.NoError(t, f.MkdirAll("y"))
	require.NoError(t, f.SyncDir("."))
	require.NoError(t, create(t, f, "x/a", "text", page).Sync())
	require.NoError(t, f.Rename("x/a", "y/a"))
	assert.Equal(t, []string{"x/ x/a:text y/", "x/ y/", "x/ y/ y/a:text"}, outcomes(f, tree))
	f = f.Kill()
	require.NoError(t, f.SyncDir("y"))
	assert.Equal(t, []string{"x/ y/ y/a:text"}, outcomes(f, tree), "the creation goes with it, or there would be two names")
}

// A chain of renames must not lose the oldest file or show one twice.
func TestNamesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	durable(t, f, "log", "1", page)
	require.NoError(t, f.Rename("log", "log.1"))
	require.NoError(t, create(t, f, "log", "2", page).Sync())
	assert.Equal(t, []string{"log.1:1", "log:1", "log:2 log.1:1"}, outcomes(f, tree))
}

// Changes of different names are independent.
func TestNamesInAnyCombination(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	durable(t, f, "a", "", page)
	require.NoError(t, f.Remove("a"))
	require.NoError(t, create(t, f, "b", "", page).Sync())
	assert.Equal(t, []string{"", "a:", "a: b:", "b:"}, outcomes(f, tree))
}

func TestRemovedFolder(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	require.NoError(t, f.MkdirAll("x"))
	require.NoError(t, f.MkdirAll("y"))
	require.NoError(t, f.SyncDir("."))
	durable(t, f, "x/a", "kept", page)
	durable(t, f, "x/b", "", page)
	require.NoError(t, f.Rename("x/a", "y/a"))
	require.NoError(t, f.RemoveAll("x"))
	for _, seen := range outcomes(f, tree) {
		assert.Equal(t, 1, strings.Count(seen, "kept"), seen)
	}
}

func TestPagesAreIndependent(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	m := mapped(t, durable(t, f, "a", "", 3*page), 3*page)
	for p := range int64(3) {
		store(t, m, "x", p*page)
	}
	seen := outcomes(f, func(f *crashfs.FS) string {
		b, err := read(f, "a")
		require.NoError(t, err)
		return strings.ReplaceAll(string([]byte{b[0], b[page], b[2*page]}), "\x00", "-")
	})
	assert.Equal(t, []string{"---", "--x", "-x-", "-xx", "x--", "x-x", "xx-", "xxx"}, seen)
}

func TestEveryVersionOfAPage(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"mapped", "written"} {
		f := crashfs.New(crashfs.Options{})
		file := durable(t, f, "a", "0", page)
		m := mapped(t, file, page)
		for _, text := range []string{"1", "2", "3"} {
			if way == "mapped" {
				store(t, m, text, 0)
			} else {
				write(t, file, text, 0)
			}
		}
		assert.Equal(t, []string{"a:0", "a:1", "a:2", "a:3"}, outcomes(f, tree), way)
		f = f.Kill()
		file, err := f.Open("a")
		require.NoError(t, err)
		require.NoError(t, file.Sync())
		assert.Equal(t, []string{"a:3"}, outcomes(f, tree), way)
	}
}

// Of many versions some are forgotten, never the newest.
func TestVersionsAreBounded(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{Versions: 3})
	file := durable(t, f, "a", "0", page)
	for c := 'a'; c <= 'z'; c++ {
		write(t, file, string(c), 0)
	}
	seen := outcomes(f, tree)
	assert.Contains(t, seen, "a:0")
	assert.Contains(t, seen, "a:z")
	assert.Len(t, seen, 4)
}

func TestTornPage(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := durable(t, f, "a", strings.Repeat("a", page), page)
	write(t, file, strings.Repeat("b", page), 0)
	torn, inStore := 0, 0
	outcomes(f, func(f *crashfs.FS) string {
		b, err := read(f, "a")
		require.NoError(t, err)
		mixed := false
		for s := 0; s < page; s += 512 {
			sector := b[s : s+512]
			if bytes.Count(sector, sector[:1]) == 512 {
				mixed = mixed || sector[0] != b[0]
				continue
			}
			inStore++
			for w := 0; w < 512; w += 8 {
				assert.Equal(t, 8, bytes.Count(sector[w:w+8], sector[w:w+1]), "words are never torn")
			}
		}
		if mixed {
			torn++
		}
		return ""
	})
	assert.Positive(t, torn)
	assert.Positive(t, inStore)
}

func TestSizesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := durable(t, f, "a", strings.Repeat("a", 3*page), 3*page)
	require.NoError(t, file.Cut(page+10))
	require.NoError(t, file.Allocate(2*page))
	seen := outcomes(f, func(f *crashfs.FS) string {
		b, err := read(f, "a")
		require.NoError(t, err)
		switch len(b) {
		case 3 * page:
			assert.NotContains(t, string(b[2*page:]), "\x00", "this page was not stored to")
			return "as it was"
		case page + 10:
			assert.NotContains(t, string(b), "\x00")
			return "cut"
		case 2 * page:
			assert.Equal(t, make([]byte, page-10), b[page+10:], "what was cut off does not come back")
			return "grown"
		}
		return "impossible"
	})
	assert.Equal(t, []string{"as it was", "cut", "grown"}, seen)
}

// What is stored behind a cut is in other blocks than what was there before.
func TestStoreBehindACut(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := durable(t, f, "a", strings.Repeat("a", 2*page), 2*page)
	require.NoError(t, file.Cut(page))
	require.NoError(t, file.Allocate(2*page))
	write(t, file, "b", page)
	seen := outcomes(f, func(f *crashfs.FS) string {
		b, err := read(f, "a")
		require.NoError(t, err)
		if len(b) == page {
			return "cut"
		}
		return strings.ReplaceAll(string(b[page:page+2]), "\x00", "-")
	})
	assert.Equal(t, []string{"--", "aa", "b-", "cut"}, seen, "and never ba")
}

func TestKillKeepsEverything(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := create(t, f, "a", "text", page)
	g := f.Kill()
	assert.Equal(t, "a:text", tree(g))
	_, err := file.WriteAt([]byte("late"), 0)
	require.ErrorIs(t, err, crashfs.ErrPowerCut)
	assert.Equal(t, "a:text", tree(g))
	assert.Equal(t, []string{"", "a:", "a:text"}, outcomes(g, tree), "but it is as dirty as before")
}

func TestDeadHandles(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := durable(t, f, "a", "text", page)
	m := mapped(t, file, page)
	g := f.Crash(rand.New(rand.NewPCG(1, 1)))
	copy(m.Reserve(0, 4), "late")
	require.ErrorIs(t, m.Commit(0, 4), crashfs.ErrPowerCut)
	assert.Equal(t, "a:text", tree(g))
	_, err := file.ReadAt(make([]byte, 1), 0)
	for _, err := range []error{
		err, file.Sync(), file.Cut(0), file.Allocate(0), file.Forget(0, 0), file.Close(), m.Unmap(), m.Populate(0, 1),
		f.MkdirAll("b"), f.Rename("a", "b"), f.Remove("a"), f.RemoveAll("a"), f.SyncDir("."),
	} {
		assert.ErrorIs(t, err, crashfs.ErrPowerCut)
	}
	assert.True(t, f.Off())
	assert.False(t, g.Off())
}

// The step during which the power goes happened or not; none later did.
func TestCutAt(t *testing.T) {
	t.Parallel()
	var seen []string
	for seed := range uint64(cuts) {
		f := crashfs.New(crashfs.Options{Seed: seed})
		file := durable(t, f, "a", "0", page)
		f.CutAt(2)
		write(t, file, "1", 0)
		_, err := file.WriteAt([]byte("2"), 0)
		require.ErrorIs(t, err, crashfs.ErrPowerCut)
		_, err = file.WriteAt([]byte("3"), 0)
		require.ErrorIs(t, err, crashfs.ErrPowerCut)
		assert.EqualValues(t, 6, f.Steps())
		seen = append(seen, tree(f.Crash(rand.New(rand.NewPCG(seed, 1)))))
	}
	slices.Sort(seen)
	assert.Equal(t, []string{"a:0", "a:1", "a:2"}, slices.Compact(seen))
}

func TestSameSeedSameEnd(t *testing.T) {
	t.Parallel()
	end := func() string {
		f := crashfs.New(crashfs.Options{Seed: 7})
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			file := create(t, f, name, name, 20*page)
			for p := range int64(20) {
				write(t, file, strings.Repeat(name, 100), p*page)
			}
			f.Inject(crashfs.Fault{Op: vfs.OpSync, How: crashfs.Lose})
			require.Error(t, file.Sync())
		}
		f = f.Crash(rand.New(rand.NewPCG(7, 1)))
		var all []byte
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			b, _ := read(f, name)
			all = append(all, b...)
		}
		return tree(f) + string(all)
	}
	assert.Equal(t, end(), end())
}

func TestLimit(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{Limit: 3 * page})
	file := durable(t, f, "a", "", 2*page)
	_, err := f.Create("b", 2*page)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, file.Allocate(4*page), syscall.ENOSPC)
	require.NoError(t, f.Remove("a"))
	_, err = f.Create("b", 2*page)
	require.ErrorIs(t, err, syscall.ENOSPC, "a removed file counts while it is open")
	require.NoError(t, file.Close())
	_, err = f.Create("b", 2*page)
	require.NoError(t, err)
	free, err := f.Free(".")
	require.NoError(t, err)
	assert.EqualValues(t, page, free)
	assert.Contains(t, outcomes(f, tree), "a:", "the removal is not durable")
}

func TestPortable(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{Portable: true})
	file := durable(t, f, "a", "", page)
	_, err := file.Map(page)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	store(t, vfs.Unmapped(file), "text", 0)
	assert.Equal(t, []string{"a:", "a:text"}, outcomes(f, tree))
}

func TestErrorsAreThoseOfTheSeam(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	_, err := f.Open("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = f.List("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, f.Rename("a", "b"), fs.ErrNotExist)
	require.ErrorIs(t, f.Remove("a"), fs.ErrNotExist)
	require.NoError(t, f.RemoveAll("a"))
	file := create(t, f, "a", "", page)
	_, err = f.Create("a", page)
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = file.Map(2 * page)
	require.Error(t, err)
	require.NoError(t, file.Close())
	require.ErrorIs(t, file.Close(), fs.ErrClosed)
}
