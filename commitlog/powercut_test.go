package commitlog_test

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/crashfs"
	"github.com/pocketmq/mq/internal/vfs"
)

// What TestCrash found, one by one.

func crashOptions(seed uint64) (commitlog.Options, *crashfs.FS) {
	f := crashfs.New(crashfs.Options{Seed: seed})
	return commitlog.Options{FS: f, Dir: "log", Mmap: true, HeadLen: headLen, SegmentBytes: 16 << 10}, f
}

// powerCut returns the options to open what a power cut leaves.
func powerCut(o commitlog.Options, seed uint64) commitlog.Options {
	o.FS = o.FS.(*crashfs.FS).Crash(rand.New(rand.NewPCG(seed, 1)))
	return o
}

// All that is written is synced, but the log is poisoned: no clean end.
func TestPoisonedLogIsNotClosedCleanly(t *testing.T) {
	t.Parallel()
	o, f := crashOptions(1)
	l, _, _ := open(t, o, commitlog.Start{})
	_, end := put(t, l, "a")
	require.NoError(t, l.Wait(ctx, end))
	f.Inject(crashfs.Fault{Op: vfs.OpCommit})
	_, _, err := tryPut(ctx, l, commitlog.Wait, "b")
	require.ErrorIs(t, err, commitlog.ErrPoisoned)
	assert.ErrorIs(t, l.Close(), commitlog.ErrPoisoned)
}

// The folder is made, and making it durable fails; the next opening finds it.
func TestFolderFoundIsMadeDurable(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		o, f := crashOptions(seed)
		f.Inject(crashfs.Fault{Op: vfs.OpSyncDir})
		_, _, err := commitlog.Open(o, commitlog.Start{}, nil)
		require.ErrorIs(t, err, syscall.EIO)
		l, _, _ := open(t, o, commitlog.Start{})
		put(t, l, "a")
		require.NoError(t, l.Sync(ctx))
		_, _, got := open(t, powerCut(o, seed), commitlog.Start{})
		require.Equal(t, []string{"a"}, got)
	}
}

// There is space for half of the segment that a large frame wants. Its half must
// be whole pages, or it is not known again.
func TestHalvedSegmentIsASegment(t *testing.T) {
	t.Parallel()
	for pages := 1; pages < 6; pages++ {
		o, f := crashOptions(1)
		l, _, _ := open(t, o, commitlog.Start{})
		f.Before(func(c vfs.Call) error {
			if c.Op == vfs.OpCreate && c.Size > 230<<10 {
				return syscall.ENOSPC
			}
			return nil
		})
		want := numbered(1, 100<<10+pages*4096)
		put(t, l, want[0]) // fits, with less behind it
		for len(l.Segments()) < 4 {
			want = append(want, numbered(1, 3000+len(want))...)
			put(t, l, want[len(want)-1])
		}
		require.NoError(t, l.Sync(ctx))
		_, rec, got := open(t, powerCut(o, 1), commitlog.Start{})
		require.Equal(t, want, got)
		require.Empty(t, rec.Corrupt)
	}
}

// A power cut in the middle of retention undoes some removals and not others:
// nothing is damaged.
func TestCutInTheMiddleOfRetention(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		o, f := crashOptions(seed)
		l, _, _ := open(t, o, commitlog.Start{})
		for len(l.Segments()) < 6 {
			put(t, l, string(make([]byte, 3000)))
		}
		require.NoError(t, l.Sync(ctx))
		want := l.Segments()[5].Base
		f.Inject(crashfs.Fault{Op: vfs.OpSyncDir, Times: -1, Err: errors.New("too late")})
		require.Error(t, l.DropBefore(ctx, l.Written()))
		next, rec, _ := open(t, powerCut(o, seed), commitlog.Start{})
		require.Empty(t, rec.Corrupt)
		require.Equal(t, want, next.Start())
	}
}
