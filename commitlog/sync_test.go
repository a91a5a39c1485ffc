package commitlog_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

var ctx = context.Background()

func memOptions(t testing.TB) (commitlog.Options, *vfs.Mem) {
	o := options(t, "mem")
	return o, o.FS.(*vfs.Mem)
}

// Catches: no fdatasync at all; the mark advanced before it.
func TestWaitSyncsBeforeTheMarkAdvances(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	l, _, _ := open(t, o, commitlog.Start{})
	before := l.Synced()
	_, end := put(t, l, "a")
	var during []commitlog.Position
	mem.Fail(func(c vfs.Call) error {
		if c.Op == vfs.OpSync {
			during = append(during, l.Synced())
		}
		return nil
	})
	require.NoError(t, l.Wait(ctx, end))
	mem.Fail(nil)
	assert.Equal(t, []commitlog.Position{before}, during, "one sync, and the mark as it was before")
	assert.Equal(t, end, l.Synced())
	syncs := mem.Calls(vfs.OpSync)
	require.NoError(t, l.Wait(ctx, end), "what is synced takes no sync")
	assert.Equal(t, syncs, mem.Calls(vfs.OpSync))
	assert.Error(t, l.Wait(ctx, end+8), "a position that was never written")
}

// Catches: syncing only the newest segment, or in another order.
func TestOlderSegmentsAreSyncedFirst(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	l, _, _ := open(t, o, commitlog.Start{})
	segments := len(l.Segments())
	require.NoError(t, l.Sync(ctx))
	mem.Record()
	for len(l.Segments()) < segments+2 {
		put(t, l, string(make([]byte, 10<<10)))
	}
	put(t, l, "in the newest")
	made := map[string]bool{} // a successor is synced once when it is made
	for _, c := range mem.Ops() {
		if c.Op == vfs.OpCreate {
			made[c.Name] = true
		}
	}
	mem.Record()
	require.NoError(t, l.Sync(ctx))
	var synced []string
	for _, c := range mem.Ops() {
		if c.Op == vfs.OpSync {
			synced = append(synced, filepath.Base(c.Name))
		}
	}
	var want []string
	for _, s := range l.Segments() {
		want = append(want, segmentName(s.Base))
	}
	require.GreaterOrEqual(t, len(synced), len(want))
	assert.Equal(t, want, synced[:len(want)])
	assert.NotEmpty(t, made)
}

// Catches: no sync of the folder after making a segment.
func TestSegmentIsDurableBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	mem.Record()
	l, _, _ := open(t, o, commitlog.Start{})
	for len(l.Segments()) < 4 {
		put(t, l, string(make([]byte, 10<<10)))
	}
	state := map[string]string{}
	for _, c := range mem.Ops() {
		switch c.Op {
		case vfs.OpCreate:
			state[c.Name] = "made"
		case vfs.OpSync:
			if state[c.Name] == "made" {
				state[c.Name] = "synced"
			}
		case vfs.OpSyncDir:
			for name, s := range state {
				if s == "synced" && filepath.Dir(name) == c.Name {
					state[name] = "durable"
				}
			}
		case vfs.OpCommit:
			require.Equal(t, "durable", state[c.Name], c.Name)
		}
	}
	assert.GreaterOrEqual(t, len(state), 4)
}

// Catches: going on after a failed sync.
func TestFailedSyncPoisons(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	l, _, _ := open(t, o, commitlog.Start{})
	refs, end := put(t, l, "a")
	require.NoError(t, l.Wait(ctx, end))
	_, end2 := put(t, l, "b")
	broken := errors.New("I/O error")
	mem.FailNth(vfs.OpSync, 1, broken)
	err := l.Wait(ctx, end2)
	require.ErrorIs(t, err, commitlog.ErrPoisoned)
	require.ErrorIs(t, err, broken)
	syncs := mem.Calls(vfs.OpSync)

	assert.ErrorIs(t, l.Err(), broken)
	assert.ErrorIs(t, l.Wait(ctx, end2), commitlog.ErrPoisoned, "no retry may turn it into a lie")
	assert.ErrorIs(t, l.Follow(ctx, end2), commitlog.ErrPoisoned)
	assert.ErrorIs(t, l.Sync(ctx), commitlog.ErrPoisoned)
	assert.NoError(t, l.Wait(ctx, end), "what was synced before stays so")
	assert.Equal(t, end, l.Synced())
	for _, room := range []commitlog.Room{commitlog.Wait, commitlog.Try, commitlog.Reserved} {
		_, _, err = tryPut(ctx, l, room, "c")
		assert.ErrorIs(t, err, commitlog.ErrPoisoned)
	}
	assert.Equal(t, []string{"a"}, read(t, l, refs), "stored records stay readable")
	assert.ErrorIs(t, l.Close(), commitlog.ErrPoisoned)
	assert.Equal(t, syncs, mem.Calls(vfs.OpSync), "nothing is synced any more")
}

func TestFailedSyncReachesEverybody(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	l, _, _ := open(t, o, commitlog.Start{})
	_, end := put(t, l, "a")
	started, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	mem.Fail(func(c vfs.Call) error {
		if c.Op != vfs.OpSync {
			return nil
		}
		once.Do(func() { close(started); <-release })
		return errors.New("I/O error")
	})
	var wg sync.WaitGroup
	results := make(chan error, 11)
	led := make(chan struct{})
	wg.Go(func() { defer close(led); results <- l.Wait(ctx, end) })
	select {
	case <-started:
	case <-led:
		t.Fatal("no sync")
	}
	for i := range 10 {
		wg.Go(func() {
			if i%2 == 0 {
				results <- l.Follow(ctx, end)
				return
			}
			results <- l.Wait(ctx, end)
		})
	}
	close(release)
	wg.Wait()
	for range 11 {
		assert.ErrorIs(t, <-results, commitlog.ErrPoisoned)
	}
}

// gateFS runs a function before every sync of a file, outside all locks.
type gateFS struct {
	vfs.FS
	beforeSync func()
}

type gateFile struct {
	vfs.File
	fs *gateFS
}

func (g *gateFS) Create(name string, size int64) (vfs.File, error) {
	f, err := g.FS.Create(name, size)
	return &gateFile{f, g}, err
}

func (f *gateFile) Sync() error {
	f.fs.pass()
	return f.File.Sync()
}

func (f *gateFile) Map(size int64) (vfs.Mapping, error) {
	m, err := f.File.Map(size)
	return &gateMapping{m, f.fs}, err
}

type gateMapping struct {
	vfs.Mapping
	fs *gateFS
}

func (m *gateMapping) Sync(off, n int64) error {
	m.fs.pass()
	return m.Mapping.Sync(off, n)
}

func (g *gateFS) pass() {
	if g.beforeSync != nil {
		g.beforeSync()
	}
}

// Everybody who comes while a sync runs is covered by the next one.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	gate := &gateFS{FS: mem}
	o.FS = gate
	l, _, _ := open(t, o, commitlog.Start{})
	const senders, rounds = 64, 20
	before := l.Stats().Syncs
	for range rounds {
		var appended atomic.Int64
		gate.beforeSync = func() {
			for appended.Load() < senders {
				runtime.Gosched() // the disk is slow until all have come
			}
		}
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				_, end, err := tryPut(ctx, l, commitlog.Wait, "body")
				appended.Add(1)
				if err == nil && s%4 == 0 {
					err = l.Follow(ctx, end)
				} else if err == nil {
					err = l.Wait(ctx, end)
				}
				if err != nil || l.Synced() < end {
					t.Errorf("sender %d: synced %d, end %d: %v", s, l.Synced(), end, err)
				}
			})
		}
		wg.Wait()
	}
	assert.LessOrEqual(t, l.Stats().Syncs-before, int64(2*rounds), "for %d sends", senders*rounds)
	gate.beforeSync = nil
}

// The same where syncs take the time they take.
func TestGroupCommitOnDisk(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		l, _, _ := open(t, o, commitlog.Start{})
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for range 20 {
					_, end, err := tryPut(ctx, l, commitlog.Wait, "body")
					if err == nil {
						err = l.Wait(ctx, end)
					}
					if err != nil || l.Synced() < end {
						t.Errorf("synced %d, end %d: %v", l.Synced(), end, err)
						return
					}
				}
			})
		}
		wg.Wait()
		t.Logf("%d sends, %d syncs", 64*20, l.Stats().Syncs)
	})
}

// A cancelled waiter leaves; if it was made leader in that moment it leads.
func TestWaitEndsWithContext(t *testing.T) {
	t.Parallel()
	o, mem := memOptions(t)
	l, _, _ := open(t, o, commitlog.Start{})
	_, end := put(t, l, "a")
	started, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	mem.Fail(func(c vfs.Call) error {
		if c.Op == vfs.OpSync {
			once.Do(func() { close(started); <-release })
		}
		return nil
	})
	leader := make(chan error, 1)
	go func() { leader <- l.Wait(ctx, end) }()
	select {
	case <-started:
	case <-leader:
		t.Fatal("no sync")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	assert.ErrorIs(t, l.Wait(cancelled, end), context.Canceled)
	assert.ErrorIs(t, l.Follow(cancelled, end), context.Canceled)
	close(release)
	require.NoError(t, <-leader)
	_, end = put(t, l, "b")
	require.NoError(t, l.Wait(ctx, end), "the lead was given back")
}

func TestBackgroundSync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, mem := memOptions(t)
		o.SyncEvery = 500 * time.Millisecond
		l, _, _ := open(t, o, commitlog.Start{})
		_, end := put(t, l, "a")
		time.Sleep(499 * time.Millisecond)
		synctest.Wait()
		assert.Less(t, l.Synced(), end)
		_, end = put(t, l, "b")
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, end, l.Synced(), "500 ms after the first unsynced byte")

		syncs := mem.Calls(vfs.OpSync)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(t, syncs, mem.Calls(vfs.OpSync), "an idle log does nothing")
		_, end = put(t, l, "c")
		time.Sleep(501 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, end, l.Synced(), "armed again")
		require.NoError(t, l.Close())
	})
}

func TestBackgroundSyncByBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, _ := memOptions(t)
		o.SyncEvery, o.SyncBytes = time.Hour, 16<<10
		l, _, _ := open(t, o, commitlog.Start{})
		for range 3 { // it keeps working
			from := l.Synced()
			var end commitlog.Position
			for end-from <= 16<<10 {
				_, end = put(t, l, string(make([]byte, 1000)))
			}
			synctest.Wait()
			assert.GreaterOrEqual(t, l.Synced(), end-2000)
		}
		require.NoError(t, l.Close())
	})
}

func TestClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, _ := memOptions(t)
		l, _, _ := open(t, o, commitlog.Start{})
		now := func() (ms int64) {
			_, err := l.Append(ctx, commitlog.Wait, commitlog.Layout{}.Add(testHead), func(f *commitlog.Frame) error {
				ms = f.Now()
				dst, _, _ := f.Next(testHead, nil, 0)
				clear(dst)
				dst[0] = testHead
				return nil
			})
			require.NoError(t, err)
			return ms
		}
		assert.Equal(t, time.Now().UnixMilli(), now())
		time.Sleep(time.Hour) // idle: the next question reads the real clock
		assert.Equal(t, time.Now().UnixMilli(), now())
		for range 100 {
			time.Sleep(time.Millisecond)
			assert.InDelta(t, time.Now().UnixMilli(), now(), 2)
		}
		require.NoError(t, l.Close())
	})
}
