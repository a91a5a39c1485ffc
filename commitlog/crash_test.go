package commitlog_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/crashfs"
	"github.com/pocketmq/mq/internal/labrow"
	"github.com/pocketmq/mq/internal/vfs"
)

var (
	crashSeeds = flag.Int("seeds", 0, "how many random histories TestCrash goes through in each mode, 0 for a few hundred")
	crashSeed  = flag.Uint64("seed", 0, "the one history that TestCrash is to go through, 0 for many")
)

// TestCrash goes through random histories of a log on a file system that loses
// what was not synced: appends, syncs, rolls, retention, faults; a power cut, a
// kill or a close in between, also while the log is being recovered; and opens
// the log again. What a log must be then is said at crashRun.check.
//
// A failing history is gone through again by
//
//	go test ./commitlog -run TestCrash/mapped -seed 123
func TestCrash(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"mapped", "portable"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			var total crashStats
			for _, seed := range seedsToTry() {
				c := newCrashRun(seed, mode == "portable")
				err := c.history(t)
				total.add(c.stats)
				if err != nil {
					t.Fatalf("%v\n\n%s\n\nagain: go test ./commitlog -run TestCrash/%s -seed %d", err, c.tail(60), mode, seed)
				}
			}
			labrow.Row{
				Tool: "crash, " + mode, Runs: total.cuts + total.kills + total.closes, Acknowledged: total.frames,
				Note: fmt.Sprint(total), Seconds: time.Since(began).Seconds(),
			}.Log(t)
		})
	}
}

func seedsToTry() []uint64 {
	if *crashSeed != 0 {
		return []uint64{*crashSeed}
	}
	n := *crashSeeds
	switch {
	case n > 0:
	case testing.Short():
		n = 30
	default:
		n = 200
	}
	seeds := make([]uint64, n)
	for i := range seeds {
		seeds[i] = uint64(i + 1)
	}
	return seeds
}

// The same seed leads to the same history, or a failure could not be looked at.
func TestCrashIsDeterministic(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		one, two := newCrashRun(seed+1, false), newCrashRun(seed+1, false)
		require.NoError(t, one.history(t))
		require.NoError(t, two.history(t))
		require.Equal(t, one.trace, two.trace, "seed %d", seed+1)
	}
}

// A disk that says it has what it has not is found out: TestCrash is not blind.
func TestCrashNoticesALyingDisk(t *testing.T) {
	t.Parallel()
	for _, op := range []vfs.Op{vfs.OpSync, vfs.OpSyncDir} {
		found := false
		for seed := uint64(1); seed < 100 && !found; seed++ {
			c := newCrashRun(seed, false)
			c.lie = op
			found = c.history(t) != nil
		}
		require.True(t, found, "%s", op)
	}
}

// crashStats is what a number of histories did.
type crashStats struct {
	histories, opened, cuts, inRecovery, kills, closes, poisoned, frames, lost, steps int64
}

func (s *crashStats) add(o crashStats) {
	for i, p := range s.all() {
		*p += *o.all()[i]
	}
}

func (s *crashStats) all() []*int64 {
	return []*int64{&s.histories, &s.opened, &s.cuts, &s.inRecovery, &s.kills, &s.closes, &s.poisoned, &s.frames, &s.lost, &s.steps}
}

func (s crashStats) String() string {
	return fmt.Sprintf("%d histories: %d openings, %d power cuts (%d of them in recovery), %d kills, %d closes, %d poisoned logs, "+
		"%d frames (%d not synced and lost), %d steps of the file system",
		s.histories, s.opened, s.cuts, s.inRecovery, s.kills, s.closes, s.poisoned, s.frames, s.lost, s.steps)
}

// crashRecord and crashFrame are what was appended. A record's bytes follow from
// its number.
type crashRecord struct {
	at    commitlog.Position
	size  uint32
	epoch uint32
	end   commitlog.Position // of the frame
	id    uint64             // given out once
	n     int                // length of the body
}

type crashFrame []crashRecord

func (f crashFrame) at() commitlog.Position  { return f[0].at }
func (f crashFrame) end() commitlog.Position { return f[0].end }

// crashName is what must name one record for ever.
type crashName struct {
	at    commitlog.Position
	epoch uint32
}

// crashRun is one history, and what is known of the log.
type crashRun struct {
	rng   *rand.Rand
	opts  commitlog.Options
	fs    *crashfs.FS
	log   *commitlog.Log // nil: not open
	lie   vfs.Op         // a call that claims success; 0: none
	turn  chan struct{}  // held by the one of the log's goroutines whose turn it is
	trace []string
	stats crashStats
	limit bool // the disk is small

	frames []crashFrame         // that may be in the log, in order
	ghosts []commitlog.Position // where frames began that were lost
	unsure bool                 // the last one was refused, and may be there all the same
	acked  commitlog.Position
	names  map[crashName]uint64
	nextID uint64
	epoch  uint32 // of the last opening that succeeded

	// A log starts between the last beginning that DropBefore made and the
	// one it was asked for since.
	least, most commitlog.Position

	start   commitlog.Start // as a journal knows it
	pending bool            // DropBefore failed: no checkpoint before it succeeds
	closed  bool            // cleanly, and not opened since

	untouched bool // closed, and no opening since came as far as to change anything

	// Of the life the log is in.
	faulty bool // something was told to fail
	marks  [2]commitlog.Position
	during func(before bool) // runs around the next sync that this goroutine leads
	failed error             // found inside a hook
}

func newCrashRun(seed uint64, portable bool) *crashRun {
	c := &crashRun{rng: rand.New(rand.NewPCG(seed, 1)), names: make(map[crashName]uint64)}
	o := crashfs.Options{Seed: seed, Portable: portable}
	c.opts = commitlog.Options{
		Dir: "log", Mmap: true, HeadLen: headLen,
		SegmentBytes: []int64{16 << 10, 32 << 10, 64 << 10, 256 << 10}[c.rng.IntN(4)],
		CacheBytes:   256 << 10,
	}
	if c.limit = c.rng.IntN(4) == 0; c.limit {
		o.Limit = c.opts.SegmentBytes * int64(3+c.rng.IntN(10))
	}
	c.adopt(crashfs.New(o))
	return c
}

// note keeps a line for who looks at a failure.
func (c *crashRun) note(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf(format, args...))
}

func (c *crashRun) tail(n int) string {
	return strings.Join(c.trace[max(0, len(c.trace)-n):], "\n")
}

// adopt goes on with a file system.
func (c *crashRun) adopt(f *crashfs.FS) {
	c.fs, c.opts.FS = f, f
	f.Before(func(call vfs.Call) error { c.before(call); return nil })
	f.After(func(call vfs.Call, err error) { c.after(call) })
}

// before lets the log's own goroutines change the file system only when this one
// waits for something. Without it the order of their calls would not follow from
// the seed.
func (c *crashRun) before(call vfs.Call) {
	switch call.Op {
	case vfs.OpCreate, vfs.OpRemove, vfs.OpWrite, vfs.OpSync, vfs.OpSyncDir:
	default:
		return // cuts are made under a lock that DropBefore wants, too
	}
	if inBackground() {
		c.turn <- struct{}{}
		synctest.Wait()
		<-c.turn
	} else if call.Op == vfs.OpSync && c.during != nil {
		c.during(true)
	}
}

func (c *crashRun) after(call vfs.Call) {
	if call.Op == vfs.OpSync && !inBackground() && c.during != nil {
		during := c.during
		c.during = nil
		during(false)
	}
}

// inBackground tells whether a goroutine of the log's is calling.
func inBackground() bool {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, ".runPreparer") || strings.HasSuffix(f.Function, ".runSyncer") {
			return true
		}
		if !more {
			return false
		}
	}
}

// settle lets the log's goroutines finish what they are at. In a bubble time
// passes only when all of them wait.
func settle() { time.Sleep(time.Nanosecond) }

// history leads the log through a few lives.
func (c *crashRun) history(t *testing.T) (err error) {
	synctest.Test(t, func(*testing.T) {
		c.turn = make(chan struct{}, 1)
		c.stats.histories++
		for lives := 2 + c.rng.IntN(5); lives > 0 && err == nil; lives-- {
			if err = c.reopen(); err == nil {
				err = c.live()
			}
			if c.log != nil {
				err = errors.Join(err, c.endLife(err != nil))
			}
		}
	})
	return err
}

// reopen opens the log, which may take several attempts: the power is cut again
// during recovery, up to three deep, or calls fail.
func (c *crashRun) reopen() error {
	deep := 0
	for range 20 {
		start := c.start
		if c.rng.IntN(4) == 0 {
			start = commitlog.Start{}
		}
		c.faulty = false
		switch c.rng.IntN(8) {
		case 0, 1, 2, 3:
			if deep < 3 {
				c.fs.CutAt(1 + c.rng.Int64N(25))
			}
		case 4:
			c.injectFault()
		}
		if c.lie != 0 {
			c.fs.Inject(crashfs.Fault{Op: c.lie, How: crashfs.Lie, Times: -1, Nth: 3 + c.rng.IntN(10)})
		}
		steps := c.fs.Steps()
		rec, got, err := c.open(start)
		c.note("open from %+v: %d records, %+v, %v; %d steps", start, len(got), rec, err, c.fs.Steps()-steps)
		switch {
		case err == nil:
			c.stats.opened++
			return c.check(start, rec, got)
		case errors.Is(err, errReplay):
			c.fs.Heal()
			if c.epoch != 0 && c.fs.Steps() != steps {
				return errors.New("something was changed before replay saw everything")
			}
			continue
		case c.fs.Off():
			deep++
			c.stats.inRecovery++
			c.powerCut()
		case c.faulty:
			c.fs.Heal()
			c.afterFailedOpen()
		case c.limit && errors.Is(err, commitlog.ErrDiskFull):
			c.fs.SetLimit(0)
		default:
			return fmt.Errorf("refused to open: %w", err)
		}
		c.untouched = false // something may have been changed before it failed
	}
	return errors.New("20 attempts to open")
}

// afterFailedOpen is what may happen between two attempts.
func (c *crashRun) afterFailedOpen() {
	switch c.rng.IntN(3) {
	case 0:
		c.powerCut()
	case 1:
		c.kill()
	}
}

func (c *crashRun) powerCut() {
	c.stats.cuts++
	c.stats.steps += c.fs.Steps()
	c.adopt(c.fs.Crash(c.rng))
	c.note("power cut")
}

func (c *crashRun) kill() {
	c.stats.kills++
	c.stats.steps += c.fs.Steps()
	c.adopt(c.fs.Kill())
	c.note("killed")
}

var errReplay = errors.New("replay fails")

// open opens the log and returns what was replayed.
func (c *crashRun) open(start commitlog.Start) (*commitlog.Recovery, []crashRecord, error) {
	var got []crashRecord
	breakAt := -1
	if c.rng.IntN(20) == 0 {
		breakAt = c.rng.IntN(len(c.frames) + 1)
	}
	wrong := error(nil)
	l, rec, err := commitlog.Open(c.opts, start, func(r commitlog.Record) error {
		if len(got) == breakAt {
			return errReplay
		}
		one, err := recordOf(r)
		wrong = errors.Join(wrong, err)
		got = append(got, one)
		return nil
	})
	if err == nil {
		c.log = l
		err = wrong // of bytes, which no fault excuses
		if err != nil {
			return rec, got, fmt.Errorf("replayed bytes: %w", err)
		}
	}
	return rec, got, err
}

// recordOf decodes a record and compares its bytes with those that were written.
func recordOf(r commitlog.Record) (crashRecord, error) {
	if len(r.Payload) < testHead {
		return crashRecord{}, fmt.Errorf("record of %d bytes at %d", len(r.Payload), r.Position)
	}
	id := binary.LittleEndian.Uint64(r.Payload[4:])
	body := r.Payload[testHead:]
	if len(body) > len(crashBytes) || string(body) != string(crashBody(id, len(body))) {
		return crashRecord{}, fmt.Errorf("wrong bytes in record %d at %d", id, r.Position)
	}
	return crashRecord{at: r.Position, size: r.Size, epoch: r.Epoch, end: r.End, id: id, n: len(body)}, nil
}

// crashBytes are what bodies are cut from.
var crashBytes = func() []byte {
	b := make([]byte, 4<<20)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b) // never fails
	return b
}()

func crashBody(id uint64, n int) []byte {
	at := id * 0x9e3779b97f4a7c15 >> 20 % uint64(len(crashBytes)-n+1)
	return crashBytes[at : at+uint64(n)]
}

// check compares a log that was opened with what is known of it:
//
//   - what was written, in the order in which it was, up to some frame, and
//     nothing else: what did not survive one crash never comes back;
//   - everything that was acknowledged as synced;
//   - no damage, for the disk keeps what it has;
//   - an epoch above that of the last life, unless that ended cleanly;
//   - a beginning that retention made or was about to make.
func (c *crashRun) check(start commitlog.Start, rec *commitlog.Recovery, got []crashRecord) error {
	if len(rec.Corrupt) > 0 {
		return fmt.Errorf("damage that is none: %v", rec.Corrupt[0])
	}
	kept, dropped, err := c.match(start, got)
	if err != nil {
		return err
	}
	if dropped > rec.Start {
		return fmt.Errorf("starts at %d, but what is below %d was dropped", rec.Start, dropped)
	}
	for _, f := range c.frames[kept:] {
		if f.end() <= c.acked {
			return fmt.Errorf("lost frame [%d, %d), acknowledged up to %d", f.at(), f.end(), c.acked)
		}
		c.stats.lost++
		c.ghosts = append(c.ghosts, f.at())
	}
	c.frames, c.unsure = c.frames[:kept], false
	if err := c.checkRecovery(start, rec); err != nil {
		return err
	}
	c.least, c.most = rec.Start, rec.Start
	c.frames = slices.DeleteFunc(c.frames, func(f crashFrame) bool { return f.at() < rec.Start })
	c.acked, c.epoch = c.log.Synced(), rec.Epoch
	c.marks = [2]commitlog.Position{c.log.Synced(), c.log.Written()}
	c.start.Clean, c.closed, c.untouched, c.pending = false, false, false, false
	return nil
}

// match finds what was replayed among the frames, and returns how many are left.
// Below c.most any may be missing: retention was about to drop them, file by
// file, and a power cut undoes some removals and not others. Below dropped some
// are.
func (c *crashRun) match(start commitlog.Start, got []crashRecord) (kept int, dropped commitlog.Position, err error) {
	for kept < len(c.frames) && c.frames[kept].at() < start.From {
		kept++
	}
	for ; kept < len(c.frames); kept++ {
		f := c.frames[kept]
		if f.at() < c.most && (len(got) == 0 || got[0] != f[0]) {
			dropped = f.end()
			continue
		}
		if len(got) == 0 {
			break
		}
		if n := min(len(got), len(f)); !slices.Equal(f[:n], got[:n]) {
			return 0, 0, fmt.Errorf("replayed %+v..., written was %+v...", got[0], f[0])
		} else if n < len(f) {
			return 0, 0, fmt.Errorf("half a frame at %d", f.at())
		}
		got = got[len(f):]
	}
	if len(got) > 0 {
		return 0, 0, fmt.Errorf("%d records from nowhere: %+v...", len(got), got[0])
	}
	return kept, dropped, nil
}

func (c *crashRun) checkRecovery(start commitlog.Start, rec *commitlog.Recovery) error {
	l := c.log
	switch {
	case rec.Start < c.least || rec.Start > c.most || rec.Start != l.Start():
		return fmt.Errorf("log starts at %d, not in [%d, %d]", rec.Start, c.least, c.most)
	case rec.End != l.Written() || l.Synced() != l.Written() && !c.fs.Off():
		return fmt.Errorf("ends at %d, written %d, synced %d", rec.End, l.Written(), l.Synced())
	case rec.End < c.acked:
		return fmt.Errorf("ends at %d, acknowledged up to %d", rec.End, c.acked)
	case rec.Epoch != l.Epoch():
		return fmt.Errorf("epoch %d, not %d", l.Epoch(), rec.Epoch)
	case !rec.Clean && c.untouched && start.Clean:
		return fmt.Errorf("not clean, but it was: %+v", rec)
	case rec.Clean && c.epoch != 0 && (!c.closed || !start.Clean || rec.Epoch != c.epoch):
		return fmt.Errorf("clean, but it was not: %+v", rec)
	case !rec.Clean && rec.Epoch <= c.epoch:
		return fmt.Errorf("epoch %d after %d", rec.Epoch, c.epoch)
	}
	return nil
}

// injectFault makes something fail that may fail.
func (c *crashRun) injectFault() {
	c.faulty = true
	nth := 1 + c.rng.IntN(6)
	faults := []crashfs.Fault{
		{Op: vfs.OpSync}, {Op: vfs.OpSync, How: crashfs.Lose}, {Op: vfs.OpSync, How: crashfs.Lose}, {Op: vfs.OpSync, How: crashfs.Partly},
		{Op: vfs.OpWrite}, {Op: vfs.OpWrite, How: crashfs.Partly, Err: syscall.ENOSPC}, {Op: vfs.OpCommit},
		{Op: vfs.OpCreate, Err: syscall.ENOSPC, Times: 1 + c.rng.IntN(8)},
		{Op: vfs.OpCreate, Err: syscall.ENOSPC, How: crashfs.Partly, Times: 1 + c.rng.IntN(8)},
		{Op: vfs.OpCreate}, {Op: vfs.OpSyncDir}, {Op: vfs.OpSyncDir, How: crashfs.Partly},
		{Op: vfs.OpCut}, {Op: vfs.OpAllocate, Err: syscall.ENOSPC, How: crashfs.Partly}, {Op: vfs.OpRemove},
		{Op: vfs.OpRead}, {Op: vfs.OpRead, How: crashfs.Partly}, {Op: vfs.OpMap, Err: syscall.ENOMEM}, {Op: vfs.OpPopulate, Err: syscall.EFAULT},
	}
	if c.rng.IntN(5) == 0 {
		c.fs.FaultStore(nth)
		c.note("fault at store %d", nth)
		return
	}
	fault := faults[c.rng.IntN(len(faults))]
	fault.Nth = nth
	c.fs.Inject(fault)
	c.note("fault %+v", fault)
}
