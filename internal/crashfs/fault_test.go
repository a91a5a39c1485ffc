package crashfs_test

import (
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/crashfs"
	"github.com/pocketmq/mq/internal/vfs"
)

func TestFaultStrikesTheNthCall(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := durable(t, f, "a", "text", page)
	f.Inject(crashfs.Fault{Op: vfs.OpRead, Nth: 2, Times: 2})
	b := make([]byte, 4)
	for i, want := range []error{nil, syscall.EIO, syscall.EIO, nil} {
		_, err := file.ReadAt(b, 0)
		require.ErrorIs(t, err, want, "call %d", i)
	}
	f.Inject(crashfs.Fault{Op: vfs.OpRead, Times: -1, Err: syscall.ENOMEM})
	for range 3 {
		_, err := file.ReadAt(b, 0)
		require.ErrorIs(t, err, syscall.ENOMEM)
	}
	f.Heal()
	_, err := file.ReadAt(b, 0)
	require.NoError(t, err)
	assert.EqualValues(t, 8, f.Calls(vfs.OpRead))
}

func TestShortWrite(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 100)
	lengths := make(map[int]bool)
	for seed := range uint64(50) {
		f := crashfs.New(crashfs.Options{Seed: seed})
		file := durable(t, f, "a", "", page)
		f.Inject(crashfs.Fault{Op: vfs.OpWrite, How: crashfs.Partly, Err: syscall.ENOSPC})
		n, err := file.WriteAt([]byte(text), 0)
		require.ErrorIs(t, err, syscall.ENOSPC)
		lengths[n] = true
		assert.Equal(t, "a:"+text[:n], tree(f))
	}
	assert.Greater(t, len(lengths), 20)
}

// A file that could not be allocated is gone, but a power cut may find it.
func TestCreateWithoutSpace(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	f.Inject(crashfs.Fault{Op: vfs.OpCreate, How: crashfs.Partly, Err: syscall.ENOSPC})
	_, err := f.Create("a", 10*page)
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.Empty(t, tree(f))
	assert.Equal(t, []string{"", "a:"}, outcomes(f, tree))
}

func TestAllocatePartly(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := durable(t, f, "a", "text", page)
	f.Inject(crashfs.Fault{Op: vfs.OpAllocate, How: crashfs.Partly, Err: syscall.ENOSPC})
	require.ErrorIs(t, file.Allocate(100*page), syscall.ENOSPC)
	size, err := file.Size()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, size, int64(page))
	assert.LessOrEqual(t, size, int64(100*page))
}

// lost stores into many pages and lets their sync fail.
func lost(t *testing.T) (*crashfs.FS, vfs.File) {
	f := crashfs.New(crashfs.Options{Seed: 3})
	file := durable(t, f, "a", "", 64*page)
	for p := range int64(64) {
		write(t, file, "x", p*page)
	}
	f.Inject(crashfs.Fault{Op: vfs.OpSync, How: crashfs.Lose})
	require.ErrorIs(t, file.Sync(), syscall.EIO)
	return f, file
}

func stored(t *testing.T, f vfs.FS) (pages int) {
	b, err := read(f, "a")
	require.NoError(t, err)
	return strings.Count(string(b), "x")
}

// After a failed sync the pages look clean, so the next one, which succeeds,
// writes none of them.
func TestFailedSyncLosesPages(t *testing.T) {
	t.Parallel()
	f, file := lost(t)
	require.NoError(t, file.Sync())
	assert.Equal(t, 64, stored(t, f), "nobody sees it")
	left := stored(t, f.Crash(rand.New(rand.NewPCG(1, 1))))
	assert.Greater(t, left, 8)
	assert.Less(t, left, 56)
}

func TestStoringAgainSavesLostPages(t *testing.T) {
	t.Parallel()
	f, file := lost(t)
	for p := range int64(64) {
		write(t, file, "y", p*page+1)
	}
	require.NoError(t, file.Sync())
	assert.Equal(t, 64, stored(t, f.Crash(rand.New(rand.NewPCG(1, 1)))), "pages are written as a whole")
}

func TestForgettingShowsLostPages(t *testing.T) {
	t.Parallel()
	f, file := lost(t)
	m := mapped(t, file, page)
	require.NoError(t, file.Forget(0, 0))
	assert.Equal(t, 64, stored(t, f), "mapped pages stay")
	require.NoError(t, m.Unmap())
	require.NoError(t, file.Forget(0, 0))
	seen := stored(t, f)
	assert.Less(t, seen, 56)
	assert.Equal(t, seen, stored(t, f.Crash(rand.New(rand.NewPCG(1, 1)))))
}

func TestSyncFailsPartly(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{Seed: 3})
	file := durable(t, f, "a", "", 64*page)
	for p := range int64(64) {
		write(t, file, "x", p*page)
	}
	f.Inject(crashfs.Fault{Op: vfs.OpSync, How: crashfs.Partly})
	require.Error(t, file.Sync())
	require.NoError(t, file.Sync())
	assert.Equal(t, 64, stored(t, f.Crash(rand.New(rand.NewPCG(1, 1)))), "they stayed dirty")
}

func TestLyingSync(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := durable(t, f, "a", "0", page)
	write(t, file, "1", 0)
	f.Inject(crashfs.Fault{Op: vfs.OpSync, How: crashfs.Lie})
	require.NoError(t, file.Sync())
	assert.Equal(t, []string{"a:0", "a:1"}, outcomes(f, tree))
	f = f.Kill()
	file, err := f.Open("a")
	require.NoError(t, err)
	require.NoError(t, file.Sync())
	assert.Equal(t, []string{"a:1"}, outcomes(f, tree), "the next sync is honest again")
}

// storeGuarded stores text and returns the fault that it met.
func storeGuarded(m vfs.Mapping, text string) (fault error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		cause, ok := recover().(interface {
			error
			Addr() uintptr
		})
		if ok {
			fault = cause
		}
	}()
	copy(m.Reserve(0, int64(len(text))), text)
	return m.Commit(0, int64(len(text)))
}

func TestMemoryFault(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 2*page)
	var reached []int
	for seed := range uint64(50) {
		f := crashfs.New(crashfs.Options{Seed: seed})
		m := mapped(t, durable(t, f, "a", "", 2*page), 2*page)
		f.FaultStore(2)
		require.NoError(t, storeGuarded(m, "first"))
		require.Error(t, storeGuarded(m, text))
		before := f.Kill()
		b, err := read(before, "a")
		require.NoError(t, err)
		n := strings.Count(string(b), "x")
		assert.Less(t, n, len(text))
		reached = append(reached, n)
		assert.NoError(t, storeGuarded(mappedAgain(t, before), text), "it strikes once")
	}
	assert.NotEqual(t, reached[0], reached[1])
}

func mappedAgain(t *testing.T, f *crashfs.FS) vfs.Mapping {
	file, err := f.Open("a")
	require.NoError(t, err)
	return mapped(t, file, 2*page)
}

func TestHooks(t *testing.T) {
	t.Parallel()
	f := crashfs.New(crashfs.Options{})
	file := durable(t, f, "a", "0", page)
	refused := errors.New("not today")
	var seen []error
	f.Before(func(c vfs.Call) error {
		if c.Op == vfs.OpCut {
			return refused
		}
		if c.Op == vfs.OpSync {
			write(t, file, "1", 0) // hooks may use the file system
		}
		return nil
	})
	f.After(func(_ vfs.Call, err error) { seen = append(seen, err) })
	require.ErrorIs(t, file.Cut(0), refused)
	require.NoError(t, file.Sync())
	assert.Equal(t, []error{nil, nil}, seen)
	f.Before(nil)
	f.After(nil)
	assert.Equal(t, []string{"a:1"}, outcomes(f, tree))
}
