// Package cut cuts the power of a real file system below a working process, and
// looks at what is on the disk afterwards.
package cut

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/pocketmq/mq/verify/lab"
	"github.com/pocketmq/mq/verify/workload"
)

// Ext4 and XFS cut the power 50 times, a few times in a quick run.
var (
	Ext4 = tool("ext4")
	XFS  = tool("xfs")
)

func tool(kind string) lab.Tool {
	return lab.Tool{
		Name:  kind,
		About: "power cuts below a process that sends and consumes, on " + kind,
		Run:   func(ctx context.Context, e *lab.Env) ([]lab.Row, error) { return run(ctx, e, kind) },
	}
}

const (
	fullCuts  = 50
	quickCuts = 5

	// So many topics are small enough for porcupine, with three queues each.
	fullLinear, quickLinear = 20, 3

	// A process works so long before the cut. Every other one goes on so long after
	// it: what it says while nothing reaches the disk any more is judged as well.
	longestBefore = 500 * time.Millisecond
	longestAfter  = 100 * time.Millisecond

	imageBytes = 2 << 30 // sparse; XFS wants 300 MiB
)

func run(ctx context.Context, e *lab.Env, kind string) (_ []lab.Row, err error) {
	if why := lab.CanMount(kind); why != "" {
		return lab.Skip(kind, "%s", why), nil
	}
	disk, err := lab.NewDisk(ctx, e.Dir, kind, imageBytes)
	if err != nil {
		return lab.Skip(kind, "%v", err), nil
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	c := &cutter{disk: disk, ledger: workload.NewLedger(), rnd: rand.New(rand.NewPCG(e.Seed, 2))} //nolint:gosec // not for secrets
	cuts := e.Count(fullCuts, quickCuts)
	began := time.Now()
	done := 0
	for ; done < cuts && c.ledger.Sound(); done++ {
		if err := c.once(ctx, done, e.Seed); err != nil {
			return nil, err
		}
		e.Say("%4d cuts, %d messages promised; %d Written ones not synced in time, gone; %d flaws",
			done+1, c.ledger.Acknowledged-c.ledger.Gone, c.ledger.Gone, len(c.ledger.Problems))
	}
	l := c.ledger
	if l.Sound() {
		if err := l.Finish(ctx, c.dir(), workload.PowerCut); err != nil {
			return nil, err
		}
	}
	linear := l.Linearize(e.Count(fullLinear, quickLinear), workload.LinearLimit)
	operations, errs := l.Judged()
	return []lab.Row{{
		Tool: kind, Operations: operations, Errors: errs, Runs: int64(done), Acknowledged: l.Acknowledged - l.Gone,
		Lost: l.Lost, Again: l.Again, Refused: l.Refused, Problems: l.Problems, Seconds: time.Since(began).Seconds(),
		Note: fmt.Sprintf("power cut; besides, as documented, %d Written messages younger than their sync gone and %d acknowledgements younger than theirs repeated; %d queues linearizable",
			l.Gone, l.Repeated, linear),
	}}, nil
}

type cutter struct {
	disk   *lab.Disk
	ledger *workload.Ledger
	rnd    *rand.Rand
}

func (c *cutter) dir() string { return filepath.Join(c.disk.Point, "store") }

// once lets a process work, stops it, cuts the power, and looks at what the disk
// has. Every other time the process may go on for a moment first, without power.
func (c *cutter) once(ctx context.Context, n int, seed uint64) error {
	p, err := workload.Start(ctx, workload.Config{Dir: c.dir(), Seed: seed, Life: n, DisableMmap: n%3 == 2}, c.ledger)
	if err != nil {
		return err
	}
	if n%8 != 7 { // else it may not even have opened the store
		<-p.Opened()
	}
	c.wait(ctx, longestBefore)
	cutErr := errors.Join(p.Stop(), c.disk.Cut())
	if n%2 == 1 {
		cutErr = errors.Join(cutErr, p.Continue())
		c.wait(ctx, longestAfter)
	}
	_ = p.Kill() // it may have given up by itself
	end, err := p.Wait()
	if err := errors.Join(ctx.Err(), err, cutErr); err != nil {
		return err
	}
	if end.Crashed() {
		c.ledger.Flaw("the process crashed: %v: %s", end.State, end.Complaint)
	}
	c.ledger.ForgetRefusal() // of a disk that was dead by then; now it is not
	if err := c.disk.Remount(ctx); err != nil {
		return err
	}
	return c.ledger.Check(ctx, c.dir(), workload.PowerCut)
}

func (c *cutter) wait(ctx context.Context, longest time.Duration) {
	select {
	case <-time.After(time.Duration(c.rnd.Int64N(int64(longest)))):
	case <-ctx.Done():
	}
}
