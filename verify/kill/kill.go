// Package kill ends a working process with SIGKILL, again and again, and looks
// at what it left.
package kill

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

// Tool kills 200 processes over one store, 20 in a quick run.
var Tool = lab.Tool{
	Name:  "kill",
	About: "kill -9 of a process that sends and consumes, at random moments",
	Run:   run,
}

const (
	fullKills  = 200
	quickKills = 20

	// So many topics are small enough for porcupine, with three queues each.
	fullLinear, quickLinear = 20, 4

	// longest is how long a process works before it is killed, counted from its
	// store being open.
	longest = 250 * time.Millisecond

	// checkEvery: other times the next process finds what the kill left.
	checkEvery = 10
)

func run(ctx context.Context, e *lab.Env) ([]lab.Row, error) {
	kills := e.Count(fullKills, quickKills)
	rnd := rand.New(rand.NewPCG(e.Seed, 1)) //nolint:gosec // not for secrets
	l := workload.NewLedger()
	dir := filepath.Join(e.Dir, "store")
	began := time.Now()
	done := 0
	for ; done < kills && l.Sound(); done++ {
		if err := once(ctx, rnd, dir, done, e.Seed, l); err != nil {
			return nil, err
		}
		if done%checkEvery == checkEvery-1 {
			if err := l.Check(ctx, dir, workload.Killed); err != nil {
				return nil, err
			}
			e.Say("%4d kills, %d messages and %d acknowledgements promised, %d flaws", done+1, l.Acknowledged, l.Acks, len(l.Problems))
		}
	}
	if err := l.Finish(ctx, dir, workload.Killed); err != nil {
		return nil, err
	}
	linear := l.Linearize(e.Count(fullLinear, quickLinear), workload.LinearLimit)
	operations, errs := l.Judged()
	return []lab.Row{{
		Tool: "kill", Operations: operations, Errors: errs, Runs: int64(done), Acknowledged: l.Acknowledged,
		Lost: l.Lost, Again: l.Again, Refused: l.Refused, Problems: l.Problems,
		Note:    fmt.Sprintf("SIGKILL; %d acknowledgements held; %d queues linearizable", l.Acks, linear),
		Seconds: time.Since(began).Seconds(),
	}}, nil
}

// once lives and ends one process.
func once(ctx context.Context, rnd *rand.Rand, dir string, n int, seed uint64, l *workload.Ledger) error {
	p, err := workload.Start(ctx, workload.Config{Dir: dir, Seed: seed, Life: n, DisableMmap: n%3 == 2}, l)
	if err != nil {
		return err
	}
	if n%8 != 7 { // else it may not even have opened the store
		<-p.Opened()
	}
	select {
	case <-time.After(time.Duration(rnd.Int64N(int64(longest)))):
	case <-ctx.Done():
	}
	killErr := p.Kill()
	end, err := p.Wait()
	if err := errors.Join(ctx.Err(), err); err != nil {
		return err
	}
	if killErr != nil || end.State.Exited() {
		return fmt.Errorf("process %d ended by itself: %v: %s %v", n, end.State, end.Complaint, l.Problems)
	}
	l.TakeRefusal()
	return nil
}
