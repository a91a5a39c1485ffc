// Package syscalls makes each system call of a process fail, or be its last,
// with strace's fault injection.
package syscalls

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pocketmq/mq/verify/lab"
	"github.com/pocketmq/mq/verify/workload"
)

// Tool sweeps over the N-th call of every kind. Quick runs take a sample of N.
var Tool = lab.Tool{
	Name:  "syscalls",
	About: "each system call of a fixed workload fails, or is the last (strace)",
	Run:   run,
}

const (
	steps = 48 // of the workload: seals segments, writes checkpoints

	// limit is how long a run may take: many times of what it does.
	limit = 2 * time.Minute

	quickRuns  = 80
	imageBytes = 512 << 20
)

// scenario is what the workload finds.
type scenario struct {
	name        string
	disableMmap bool
	used        bool // a store that was left open: recovery comes first
}

var scenarios = []scenario{
	{name: "new store"},
	{name: "new store, portable", disableMmap: true},
	{name: "recovery", used: true},
	{name: "recovery, portable", disableMmap: true, used: true},
}

// trial is one run.
type trial struct {
	*stage
	call  string
	fault fault
	n     int
}

func (t *trial) String() string {
	return fmt.Sprintf("%s, %s %d: %s", t.scenario.name, t.call, t.n, t.fault.name)
}

func run(ctx context.Context, e *lab.Env) (_ []lab.Row, err error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return lab.Skip("syscalls", "strace is not installed"), nil
	}
	if why := usable(ctx, e.Dir); why != "" {
		return lab.Skip("syscalls", "%s", why), nil
	}
	s := &sweep{Env: e, row: lab.Row{Tool: "syscalls"}, tally: map[string]int{}}
	if lab.CanMount("ext4") == "" {
		if s.disk, err = lab.NewDisk(ctx, e.Dir, "ext4", imageBytes); err != nil {
			s.disk = nil
			e.Say("no file system of its own (%v): the power is not cut after failed syncs", err)
		} else {
			defer func() { err = errors.Join(err, s.disk.Close()) }()
		}
	}
	var trials []*trial
	for _, sc := range scenarios {
		stage, err := s.prepare(ctx, sc)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sc.name, err)
		}
		trials = append(trials, stage.trials()...)
	}
	rnd := rand.New(rand.NewPCG(e.Seed, 5)) //nolint:gosec // not for secrets
	rnd.Shuffle(len(trials), func(i, j int) { trials[i], trials[j] = trials[j], trials[i] })
	all := len(trials)
	trials = trials[:min(len(trials), e.Count(len(trials), quickRuns))]
	e.Say("%d calls and faults, of which %d are tried", all, len(trials))
	for i, t := range trials {
		if err := s.try(ctx, t); err != nil {
			return []lab.Row{s.row}, fmt.Errorf("%v: %w", t, err)
		}
		if (i+1)%100 == 0 || i == len(trials)-1 {
			e.Say("%4d of %d runs, %d calls broken, %d messages promised, %d flaws", i+1, len(trials), s.row.Runs, s.row.Acknowledged, len(s.row.Problems))
		}
	}
	s.row.Note = s.note()
	return []lab.Row{s.row}, nil
}

type sweep struct {
	*lab.Env
	disk  *lab.Disk // nil: no power to cut
	row   lab.Row
	tally map[string]int // how runs that hit a call ended
	cuts  int
}

func (s *sweep) note() string {
	var ends []string
	for end, n := range s.tally {
		ends = append(ends, fmt.Sprintf("%d %s", n, end))
	}
	slices.Sort(ends)
	return fmt.Sprintf("%s; the power was cut after %d of them", strings.Join(ends, ", "), s.cuts)
}

// stage is a scenario that is ready to be run.
type stage struct {
	scenario
	probe *probe
	base  string           // the store to start from, if used
	told  *workload.Ledger // of it
}

func (s *sweep) root(onDisk bool) string {
	if onDisk {
		return filepath.Join(s.disk.Point, "run")
	}
	return filepath.Join(s.Dir, "run")
}

func (st *stage) config(root string, seed uint64) workload.Config {
	return workload.Config{Dir: filepath.Join(root, "store"), Seed: seed, Life: 1, DisableMmap: st.disableMmap, Steps: steps}
}

// prepare makes what the scenario starts from and learns which calls it makes.
func (s *sweep) prepare(ctx context.Context, sc scenario) (*stage, error) {
	st := &stage{scenario: sc, told: workload.NewLedger()}
	st.told.Record()
	if sc.used {
		st.base = filepath.Join(s.Dir, strings.ReplaceAll(sc.name, " ", "-"))
		c := st.config(st.base, s.Seed)
		c.Life, c.LeaveOpen = 0, true
		if err := os.Mkdir(st.base, 0o700); err != nil {
			return nil, err
		}
		if err := finish(workload.Start(ctx, c, st.told)); err != nil {
			return nil, err
		}
	}
	root, l, err := s.begin(ctx, st, false)
	if err != nil {
		return nil, err
	}
	out := filepath.Join(s.Dir, "trace")
	if err := finish(workload.Start(ctx, st.config(root, s.Seed), l, probing(out)...)); err != nil {
		return nil, err
	}
	if err := l.Finish(ctx, st.config(root, s.Seed).Dir, workload.Killed); err != nil {
		return nil, err
	}
	if !l.Sound() {
		return nil, fmt.Errorf("without a fault: %v", l.Problems)
	}
	st.probe, err = readProbe(out, root)
	return st, err
}

// finish waits for a process that nothing is done to.
func finish(p *workload.Process, err error) error {
	if err != nil {
		return err
	}
	end, err := p.Wait()
	if err == nil && end.State.ExitCode() != 0 {
		err = fmt.Errorf("%v: %s", end.State, end.Complaint)
	}
	return err
}

// begin puts an empty directory, or a copy of the used store, in place.
func (s *sweep) begin(ctx context.Context, st *stage, onDisk bool) (root string, l *workload.Ledger, err error) {
	root = s.root(onDisk)
	if err := os.RemoveAll(root); err != nil {
		return "", nil, err
	}
	if st.base == "" {
		if err := os.Mkdir(root, 0o700); err != nil {
			return "", nil, err
		}
	} else if out, err := command(ctx, "cp", "-a", st.base, root); err != nil {
		return "", nil, fmt.Errorf("%w: %s", err, out)
	}
	if onDisk { // what was there before is there after the cut
		if out, err := command(ctx, "sync", "-f", root); err != nil {
			return "", nil, fmt.Errorf("%w: %s", err, out)
		}
	}
	l, err = st.told.Replay()
	return root, l, err
}

func command(ctx context.Context, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
}

// trials lists every call and every fault it can have.
func (st *stage) trials() []*trial {
	var all []*trial
	for _, call := range slices.Concat(byPath, byAddress) {
		for n := range st.probe.counts[call] {
			for _, f := range faultsOf(call) {
				all = append(all, &trial{stage: st, call: call, fault: f, n: n + 1})
			}
		}
	}
	return all
}

// try runs the workload with one fault, and looks at what it left. Where a sync
// did not happen, a power cut follows: a store that went on as if nothing had
// been would look whole without it.
func (s *sweep) try(ctx context.Context, t *trial) error {
	cut := s.disk != nil && strings.Contains(t.call, "sync") && !t.fault.kills
	root, l, err := s.begin(ctx, t.stage, cut)
	if err != nil {
		return err
	}
	base := l.Acknowledged
	c := t.config(root, s.Seed)
	out := filepath.Join(s.Dir, "trace")
	p := *t.probe
	if cut {
		p = p.moved(s.root(false), root)
	}
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	process, err := workload.Start(timed, c, l, injecting(out, &p, t.call, t.fault, t.n)...)
	if err != nil {
		return err
	}
	end, err := process.Wait()
	if err := errors.Join(ctx.Err(), err); err != nil {
		return err
	}
	hit, err := fired(out)
	if err != nil {
		return err
	}
	if timed.Err() != nil {
		l.Flaw("the process hung")
	}
	how := s.judge(t, end, l)
	l.DoubtClose()
	l.ForgetRefusal() // under the fault it may refuse; not after it
	broken := workload.Killed
	if cut {
		broken = workload.PowerCut
		s.cuts++
		if err := errors.Join(s.disk.Cut(), s.disk.Remount(ctx)); err != nil {
			return err
		}
	}
	if err := l.Finish(ctx, c.Dir, broken); err != nil {
		l.Flaw("consuming everything: %v", err)
	}
	s.enter(t, l, base, hit, how)
	return ctx.Err()
}

// judge looks at how the process ended, and names it.
func (s *sweep) judge(t *trial, end workload.End, l *workload.Ledger) (how string) {
	life := l.Life()
	how = "saw no error"
	switch {
	case end.Crashed():
		how = "crashed"
		l.Flaw("the process crashed: %v: %.2000s", end.State, end.Complaint)
	case !end.State.Exited() || end.State.ExitCode() == 128+9:
		how = "killed"
		if !t.fault.kills {
			l.Flaw("the process ended by itself: %v", end.State)
		}
	case end.State.ExitCode() != 0:
		l.Flaw("the process ended badly: %v: %.2000s", end.State, end.Complaint)
	case life.Refusal != "":
		how = "did not open"
	case life.Poisoned != "":
		how = "poisoned"
	case len(life.Failed) > 0:
		how = "told of errors"
	}
	for _, call := range life.Hung {
		l.Flaw("hung: %s", call)
	}
	if t.call != "openat" { // what cannot be opened cannot be read
		for _, m := range life.Unreadable {
			l.Flaw("unreadable: %s", m)
		}
	}
	return how
}

// enter adds a run to the row.
func (s *sweep) enter(t *trial, l *workload.Ledger, base int64, hit bool, how string) {
	if hit {
		s.row.Runs++
		s.tally[how]++
	}
	s.row.Acknowledged += l.Acknowledged - base - l.Gone
	s.row.Lost += l.Lost
	s.row.Again += l.Again
	s.row.Refused += l.Refused
	operations, errs := l.Judged()
	s.row.Operations, s.row.Errors = s.row.Operations+operations, s.row.Errors+errs
	for _, p := range l.Problems[:min(len(l.Problems), 3)] {
		s.row.Problems = append(s.row.Problems, fmt.Sprintf("%v: %s", t, p))
	}
}

// moved returns the probe of a store in another place.
func (p *probe) moved(from, to string) probe {
	paths := map[string][]string{}
	for call, list := range p.paths {
		for _, path := range list {
			paths[call] = append(paths[call], to+strings.TrimPrefix(path, from))
		}
	}
	return probe{counts: p.counts, paths: paths}
}
