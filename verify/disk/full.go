// Package disk takes the room away from a store, and its files.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pocketmq/mq/verify/lab"
	"github.com/pocketmq/mq/verify/workload"
)

// Full fills a file system of 16 MiB.
var Full = lab.Tool{
	Name:  "diskfull",
	About: "a store on a tmpfs of 16 MiB: full, killed, opened full, given room",
	Run:   runFull,
}

const (
	fullRuns     = 20
	quickFull    = 4
	tmpfsBytes   = 16 << 20
	ballastBytes = 4 << 20
)

func runFull(ctx context.Context, e *lab.Env) ([]lab.Row, error) {
	if why := lab.CanMount("tmpfs"); why != "" {
		return lab.Skip("diskfull", "%s", why), nil
	}
	row := lab.Row{Tool: "diskfull"}
	began := time.Now()
	runs := e.Count(fullRuns, quickFull)
	for n := range runs {
		if err := fillOnce(ctx, e, n, &row); err != nil {
			return []lab.Row{row}, err
		}
		e.Say("%4d of %d disks filled twice, %d messages promised, %d flaws", n+1, runs, row.Acknowledged, len(row.Problems))
		if row.Failed() {
			break
		}
	}
	row.Note = "each: full with ErrDiskFull, read and acknowledged, kill -9, opened full, drained, given room, sent again, closed"
	row.Seconds = time.Since(began).Seconds()
	return []lab.Row{row}, nil
}

// fillOnce fills a disk, kills the process, opens the store on the full disk,
// makes room, and goes on.
func fillOnce(ctx context.Context, e *lab.Env, n int, row *lab.Row) (err error) {
	dir := filepath.Join(e.Dir, fmt.Sprint("full", n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	disk, err := lab.NewTmpfs(ctx, dir, tmpfsBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close(), os.RemoveAll(dir)) }()
	ballast := filepath.Join(disk.Point, "ballast")
	if err := os.WriteFile(ballast, make([]byte, ballastBytes), 0o600); err != nil {
		return err
	}
	l := workload.NewLedger()
	c := workload.Config{Dir: filepath.Join(disk.Point, "store"), Seed: e.Seed + uint64(n), DisableMmap: n%2 == 1, Fill: true} //nolint:gosec // small
	if err := fillLife(ctx, c, l, false); err != nil {
		return err
	}
	c.Life, c.Ballast = 1, ballast
	if err := fillLife(ctx, c, l, true); err != nil {
		return err
	}
	if err := l.Finish(ctx, c.Dir, workload.Killed); err != nil {
		l.Flaw("consuming everything: %v", err)
	}
	row.Runs++
	addLedger(row, fmt.Sprint("disk ", n), l)
	return nil
}

// fillLife is one process on the disk.
func fillLife(ctx context.Context, c workload.Config, l *workload.Ledger, closes bool) error {
	p, err := workload.Start(ctx, c, l)
	if err != nil {
		return err
	}
	end, err := p.Wait()
	if err := errors.Join(ctx.Err(), err); err != nil {
		return err
	}
	life := l.Life()
	if end.Crashed() || end.State.Exited() != closes {
		l.Flaw("the process ended with %v: %.2000s", end.State, end.Complaint)
	}
	if !life.Full || life.Room != closes || life.Poisoned != "" {
		l.Flaw("full %t, room again %t, poisoned %q", life.Full, life.Room, life.Poisoned)
	}
	for what := range life.Failed {
		l.Flaw("failed on a full disk: %s", what)
	}
	for _, what := range life.Hung {
		l.Flaw("hung: %s", what)
	}
	for _, what := range life.Unreadable {
		l.Flaw("unreadable: %s", what)
	}
	l.TakeRefusal()
	return nil
}

func addLedger(row *lab.Row, where string, l *workload.Ledger) {
	row.Acknowledged += l.Acknowledged
	row.Lost += l.Lost
	row.Again += l.Again
	row.Refused += l.Refused
	operations, errs := l.Judged()
	row.Operations, row.Errors = row.Operations+operations, row.Errors+errs
	for _, p := range l.Problems {
		row.Problems = append(row.Problems, where+": "+p)
	}
}
