package commitlog_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
)

// cutActive cuts the file that is being appended to, as somebody else might.
// Every store and load behind the cut raises SIGBUS.
func cutActive(t *testing.T, l *commitlog.Log, o commitlog.Options) {
	segments := l.Segments()
	require.NoError(t, os.Truncate(filepath.Join(o.Dir, segmentName(segments[len(segments)-1].Base)), 0))
}

func TestFaultWhileStoring(t *testing.T) {
	t.Parallel()
	o := options(t, "mapped")
	l, _, _ := open(t, o, commitlog.Start{})
	put(t, l, "a")
	cutActive(t, l, o)
	_, _, err := tryPut(ctx, l, commitlog.Wait, "b")
	require.ErrorIs(t, err, commitlog.ErrPoisoned)
	_, _, err = tryPut(ctx, l, commitlog.Wait, "c")
	require.ErrorIs(t, err, commitlog.ErrPoisoned, "the lock was given back")
	assert.ErrorIs(t, l.Err(), commitlog.ErrPoisoned)
	assert.ErrorIs(t, l.Wait(ctx, l.Written()), commitlog.ErrPoisoned)
	assert.ErrorIs(t, l.Close(), commitlog.ErrPoisoned)
}

func TestFaultWhileLoading(t *testing.T) {
	t.Parallel()
	o := options(t, "mapped")
	l, _, _ := open(t, o, commitlog.Start{})
	one, _ := put(t, l, "a")
	two, _ := put(t, l, "b")
	cutActive(t, l, o)
	var seen []int
	l.Read(append(one, two...), func(i int, _ commitlog.Record, err error) bool {
		seen = append(seen, i)
		assert.ErrorIs(t, err, commitlog.ErrPoisoned)
		return true
	})
	assert.Equal(t, []int{0, 1}, seen)
	assert.ErrorIs(t, l.Err(), commitlog.ErrPoisoned)
}

// The bytes vanish while the caller copies them.
func TestFaultInsideVisit(t *testing.T) {
	t.Parallel()
	o := options(t, "mapped")
	l, _, _ := open(t, o, commitlog.Start{})
	refs, _ := put(t, l, "a")
	var errs []error
	var sink byte
	l.Read(refs, func(_ int, r commitlog.Record, err error) bool {
		errs = append(errs, err)
		if err == nil {
			cutActive(t, l, o)
			sink += r.Payload[testHead]
		}
		return true
	})
	require.Len(t, errs, 2)
	require.NoError(t, errs[0])
	assert.ErrorIs(t, errs[1], commitlog.ErrPoisoned)
}

// Somebody who waits for room or a sync is told.
func TestFaultWakesThoseWhoWait(t *testing.T) {
	t.Parallel()
	o := options(t, "mapped")
	gate := make(chan struct{})
	blocked := &createGate{FS: o.FS, gate: gate}
	o.FS, o.SegmentBytes = blocked, 64<<10
	l, _, _ := open(t, o, commitlog.Start{})
	refs, _ := put(t, l, "a")
	blocked.shut.Store(true)
	require.ErrorIs(t, fill(t, l, commitlog.Try, 500), commitlog.ErrBackpressure)
	got := make(chan error)
	go func() {
		_, _, err := tryPut(ctx, l, commitlog.Wait, string(make([]byte, 500)))
		got <- err
	}()
	require.Eventually(t, func() bool { return l.Stats().RoomWaits == 1 }, waitTime, pollTime)
	cutActive(t, l, o)
	l.Read(refs, func(_ int, _ commitlog.Record, err error) bool { return err == nil })
	close(gate)
	assert.ErrorIs(t, <-got, commitlog.ErrPoisoned)
}
