package mq

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/crashfs"
	"github.com/pocketmq/mq/internal/history"
	"github.com/pocketmq/mq/internal/labrow"
	"github.com/pocketmq/mq/internal/vfs"
)

var (
	powerSeeds = flag.Int("seeds", 0, "how many random histories TestPowerCuts goes through in each mode, 0 for some; with -history that one, so often")
	powerLoud  = flag.Bool("loud", false, "TestPowerCuts prints what it does at once: for a history that hangs")
	powerLines = flag.Int("lines", 200, "how many lines TestPowerCuts prints of a history that failed")
	powerSeed  = flag.Uint64("history", 0, "the one history that TestPowerCuts is to go through, 0 for many")
)

// TestPowerCuts goes through random histories of a whole broker: sends of all
// kinds, consumers of several groups, resets, topics and members that come and
// go, retention, checkpoints; a power cut, a kill or a close in between, also
// while the store is being opened, up to three deep; calls that fail. What its
// clients see is judged by package history; what must hold besides, of the store
// itself, is said at powerRun.looked.
//
// The broker stands on a file system that forgets what was not synced, but for
// its journal: the library goes to the operating system by itself. That folder
// is on a real disk, and at a power cut the test forgets for it.
//
// A failing history is gone through again by
//
//	go test -run TestPowerCuts/mapped -history 123 -seeds 20 .
//
// The seed decides what is done, and what a power cut leaves. It does not decide
// how the broker's goroutines take turns, so it may take a few times.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"mapped", "portable"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			dir := scratch(t)
			var total powerStats
			for i := range histories() {
				if i > 0 && i%1000 == 0 {
					t.Logf("so far %v in %v", &total, time.Since(began).Round(time.Second))
				}
				seed := uint64(i + 1)
				if *powerSeed != 0 {
					seed = *powerSeed
				}
				l := newPowerRun(seed, mode == "portable", filepath.Join(dir, fmt.Sprint(i)))
				synctest.Test(t, func(*testing.T) { l.history() })
				total.add(&l.stats)
				require.NoError(t, os.RemoveAll(l.dir))
				if len(l.flaws) > 0 {
					t.Fatalf("%s\n\n%s\n\nagain: go test -run TestPowerCuts/%s -history %d -seeds 20 .", l.trace.tail(*powerLines), strings.Join(l.flaws, "\n"), mode, seed)
				}
			}
			labrow.Row{
				Tool: "power, " + mode, Runs: total.cuts + total.kills + total.closes, Acknowledged: total.sent, Operations: total.judged,
				Note: total.String(), Seconds: time.Since(began).Seconds(),
			}.Log(t)
		})
	}
}

func histories() int {
	switch {
	case *powerSeeds > 0:
		return *powerSeeds
	case *powerSeed != 0:
		return 1
	case testing.Short():
		return 10
	}
	return 100
}

// scratch is a folder in memory, where there is one: thousands of journals are
// made in it, and what a disk would forget of them is decided by the test.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pocketmq")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// powerRun is one history, and what is known of the store.
type powerRun struct {
	rnd   *rand.Rand
	dir   string
	fs    *crashfs.FS
	opts  Options
	trace powerTrace
	stats powerStats

	// Of the life the store is in.
	b       *Broker
	p       *Producer
	pulls   []*powerPull
	push    *PushConsumer
	faulty  bool // something was told to fail
	hurt    bool // the same, and the broker may still believe it
	limited bool // the disk is small
	heavy   bool // messages are large, so that segments are filled and dropped
	journal powerJournal

	mu       sync.Mutex // guards all below: handlers run beside the test
	judge    *history.Checker
	judged   int                   // anomalies that are among the flaws
	dropped  map[powerQueue]Offset // what the judge was told
	handled  map[int64]history.Op  // by handlers of this life: their acknowledgements
	flaws    []string
	numbers  map[int]*powerMessage // all ever
	messages []*powerMessage       // that may be in the log, in its order
	ids      map[MessageID]bool
	holders  map[string]*powerMessage // of a DedupKey, if it is not the first that was sent
	topics   map[string]*powerTopic
	groups   map[string]*powerGroup
	calls    int64
	labels   int  // of topics
	lossy    bool // the power went since the store was looked at
}

func newPowerRun(seed uint64, portable bool, dir string) *powerRun {
	l := &powerRun{
		rnd: rand.New(rand.NewPCG(seed, 0)), dir: dir, numbers: map[int]*powerMessage{}, ids: map[MessageID]bool{}, holders: map[string]*powerMessage{},
		topics: map[string]*powerTopic{}, groups: map[string]*powerGroup{},
		judge: history.NewChecker(), dropped: map[powerQueue]Offset{}, handled: map[int64]history.Op{},
	}
	for name, acks := range map[string]Durability{"G": Synced, "H": Written, "P": Written} {
		l.groups[name] = &powerGroup{name: name, acks: acks, subs: map[*powerTopic]*powerSub{}}
	}
	o := Options{SegmentBytes: mib, Retention: Retention{Age: -1}, SyncEvery: 10 * time.Millisecond, NoAutoCreate: true}
	if l.rnd.IntN(3) == 0 {
		o.Retention.MaxBytes = int64(3+l.rnd.IntN(4)) * mib
		o.Retention.DropUnconsumed = l.rnd.IntN(2) == 0
	}
	l.heavy = o.Retention.MaxBytes > 0 || l.rnd.IntN(4) == 0
	l.opts = (&o).withDefaults(false)
	l.opts.Logger = slog.New(slog.NewTextHandler(&l.trace, nil))
	disk := crashfs.Options{Seed: seed, Portable: portable}
	if l.limited = l.rnd.IntN(5) == 0; l.limited {
		disk.Limit = int64(4+l.rnd.IntN(6)) * mib
	}
	l.fs = crashfs.New(disk)
	l.journal.dir = filepath.Join(dir, "journal")
	return l
}

// flaw notes what must not be.
func (l *powerRun) flaw(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flawLocked(format, args...)
}

func (l *powerRun) flawLocked(format string, args ...any) {
	l.flaws = append(l.flaws, fmt.Sprintf(format, args...))
	l.trace.note("FLAW %s", l.flaws[len(l.flaws)-1])
}

func (l *powerRun) failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hearJudge()
	return len(l.flaws) > 0
}

// history leads the store through a few lives, and at last drains it.
func (l *powerRun) history() {
	l.stats.histories++
	must(l.fs.MkdirAll(l.dir))
	for d := l.dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		must(l.fs.SyncDir(filepath.Dir(d)))
	}
	must(os.MkdirAll(l.dir, 0o700))
	for range 2 + l.rnd.IntN(4) {
		if !l.open() {
			return
		}
		if l.join() {
			l.arm()
			l.work()
		}
		l.end()
		if l.failed() {
			return
		}
	}
	l.fs.SetLimit(0)
	if l.open() && l.join() {
		l.drain()
	}
	if l.b != nil {
		_ = l.b.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.hearJudge()
	l.stats.lost, l.stats.judged = int64(r.Gone), int64(r.Operations())
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// open opens what the last life left. The power may go meanwhile, and again when
// it is back, and calls may fail; but the store opens.
func (l *powerRun) open() bool {
	for deep := 0; ; {
		l.faulty, l.hurt = false, false
		switch l.rnd.IntN(6) {
		case 0, 1, 2:
			if deep < 3 {
				l.fs.CutAt(1 + l.rnd.Int64N(80))
			}
		case 3:
			l.inject(l.rnd.IntN(10))
		}
		l.journal.mirror(l.fs)
		l.b = newBroker(l.opts, l.fs, l.dir)
		l.journal.watch(l.fs, l.b)
		err := l.b.open()
		l.fs.CutAt(0) // its goroutines are at work already
		l.trace.note("open: %v, power off: %v", err, l.fs.Off())
		if err == nil && !l.fs.Off() {
			l.fs.Heal()
			l.faulty = false
			l.journal.keep()
			l.stats.opened++
			if l.looked(); l.failed() {
				_ = l.b.Close()
				return false
			}
			return true
		}
		off := l.fs.Off()
		if !off && !l.faulty && !(l.limited && errors.Is(err, ErrDiskFull)) {
			l.flaw("does not open: %v", err)
			_ = l.b.release()
			return false
		}
		end := l.b.release
		if err == nil {
			end = l.b.Close
		}
		if off {
			deep++
			l.stats.inRecovery++
		} else if !l.faulty {
			l.fs.SetLimit(0)
		}
		if off || l.rnd.IntN(2) == 0 {
			l.powerCut(end)
		} else {
			l.kill(end)
		}
		if l.failed() {
			return false
		}
	}
}

// arm has the power go at some time from now on, or something fail.
func (l *powerRun) arm() {
	if l.rnd.IntN(3) > 0 {
		l.fs.CutAt(1 + l.rnd.Int64N(400))
	}
	if l.rnd.IntN(4) == 0 {
		l.inject(l.rnd.IntN(150))
	}
}

// inject makes the nth call of some kind fail.
func (l *powerRun) inject(nth int) {
	l.faulty, l.hurt = true, true
	if l.rnd.IntN(6) == 0 {
		l.fs.FaultStore(nth + 1)
		l.trace.note("fault at store %d", nth+1)
		return
	}
	faults := []crashfs.Fault{
		{Op: vfs.OpSync}, {Op: vfs.OpSync, How: crashfs.Lose}, {Op: vfs.OpSync, How: crashfs.Lose}, {Op: vfs.OpSync, How: crashfs.Partly},
		{Op: vfs.OpWrite}, {Op: vfs.OpWrite, How: crashfs.Partly, Err: syscall.ENOSPC}, {Op: vfs.OpWrite, How: crashfs.Partly},
		{Op: vfs.OpCreate, Err: syscall.ENOSPC, Times: 1 + l.rnd.IntN(8)},
		{Op: vfs.OpCreate, Err: syscall.ENOSPC, How: crashfs.Partly, Times: 1 + l.rnd.IntN(8)},
		{Op: vfs.OpCreate}, {Op: vfs.OpSyncDir}, {Op: vfs.OpSyncDir, How: crashfs.Partly}, {Op: vfs.OpCommit},
		{Op: vfs.OpCut}, {Op: vfs.OpAllocate, Err: syscall.ENOSPC, How: crashfs.Partly}, {Op: vfs.OpRemove}, {Op: vfs.OpRename},
		{Op: vfs.OpRead}, {Op: vfs.OpRead, How: crashfs.Partly}, {Op: vfs.OpMap, Err: syscall.ENOMEM}, {Op: vfs.OpPopulate, Err: syscall.EFAULT},
	}
	fault := faults[l.rnd.IntN(len(faults))]
	fault.Nth = nth / 8
	l.fs.Inject(fault)
	l.trace.note("fault %+v", fault)
}

// end ends a life.
func (l *powerRun) end() {
	if l.b.log.Err() != nil {
		l.stats.poisoned++
	}
	if l.fs.Off() {
		l.powerCut(l.b.Close)
		return
	}
	switch l.rnd.IntN(6) {
	case 0, 1:
		l.kill(l.b.Close)
	case 2, 3:
		l.close()
	default:
		l.powerCut(l.b.Close)
	}
}

// quiet runs fn while nobody stores into the log.
func (l *powerRun) quiet(fn func()) {
	if l.b.log == nil {
		fn()
		return
	}
	l.b.log.Exclusive(fn)
}

func (l *powerRun) powerCut(end func() error) {
	l.stats.cuts++
	l.stats.steps += l.fs.Steps()
	var left *crashfs.FS
	l.quiet(func() { left = l.fs.Crash(l.rnd) })
	_ = end() // it cannot do what it wants to
	l.fs = left
	l.journal.cut(l.rnd, &l.trace)
	l.lossy = true
	l.crashed(history.OpCut)
	l.trace.note("power cut")
}

func (l *powerRun) kill(end func() error) {
	l.stats.kills++
	l.stats.steps += l.fs.Steps()
	var left *crashfs.FS
	l.quiet(func() { left = l.fs.Kill() })
	_ = end()
	l.fs = left
	l.crashed(history.OpKill)
	l.trace.note("killed")
}

// close ends a life in an orderly way, or tries to. The power may go then, too.
func (l *powerRun) close() {
	if l.rnd.IntN(2) == 0 {
		l.fs.CutAt(1 + l.rnd.Int64N(40))
	}
	call := l.begin(history.Op{Kind: history.OpSync})
	err := l.b.Close()
	l.trace.note("close: %v, power off: %v", err, l.fs.Off())
	off := l.fs.Off()
	switch {
	case err == nil:
		l.stats.closes++
		l.tell(history.Op{Kind: history.OpSyncDone, Call: call})
		l.tell(l.handledForGood()...)
		if !off {
			l.journal.keep()
		}
	case !off && !l.faulty && !(l.limited && errors.Is(err, syscall.ENOSPC)):
		l.flaw("close: %v", err)
	}
	l.fs.CutAt(0)
	if !off && l.rnd.IntN(2) == 0 {
		l.stats.kills++
		l.fs = l.fs.Kill()
		l.crashed(history.OpKill)
		return
	}
	l.powerCut(func() error { return nil })
}

// powerStats is what a number of histories did.
type powerStats struct {
	histories, opened, cuts, inRecovery, kills, closes, poisoned, sent, lost, delivered, acked, dropped, parked, repeats, steps, judged int64
}

func (s *powerStats) all() []*int64 {
	return []*int64{
		&s.histories, &s.opened, &s.cuts, &s.inRecovery, &s.kills, &s.closes, &s.poisoned, &s.sent, &s.lost, &s.delivered,
		&s.acked, &s.dropped, &s.parked, &s.repeats, &s.steps, &s.judged,
	}
}

func (s *powerStats) add(o *powerStats) {
	for i, p := range s.all() {
		*p += *o.all()[i]
	}
}

func (s *powerStats) String() string {
	return fmt.Sprintf("%d histories: %d openings, %d power cuts (%d of them while opening), %d kills, %d closes, %d poisoned logs; "+
		"%d messages acknowledged (%d not synced and lost to power cuts, %d dropped by retention), %d delivered, %d acknowledged by groups, %d copies of parked ones seen, %d repeats told; %d steps of the file system; %d operations judged",
		s.histories, s.opened, s.cuts, s.inRecovery, s.kills, s.closes, s.poisoned, s.sent, s.lost, s.dropped, s.delivered, s.acked, s.parked, s.repeats, s.steps, s.judged)
}

// powerTrace keeps lines for who looks at a failure: the test's and the broker's.
type powerTrace struct {
	mu    sync.Mutex
	lines []string
}

func (p *powerTrace) Write(b []byte) (int, error) {
	p.note("    %s", bytes.TrimSpace(b))
	return len(b), nil
}

func (p *powerTrace) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, fmt.Sprintf(format, args...))
	if *powerLoud {
		fmt.Println(p.lines[len(p.lines)-1])
	}
}

func (p *powerTrace) tail(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(slices.Clone(p.lines[max(0, len(p.lines)-n):]), "\n")
}
