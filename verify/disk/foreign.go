package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pocketmq/mq/verify/lab"
	"github.com/pocketmq/mq/verify/workload"
)

// Foreign lets another process damage the log of a living one.
var Foreign = lab.Tool{
	Name:  "foreign",
	About: "another process cuts, removes or moves the segment that is written",
	Run:   runForeign,
}

// act is what another process does to a store.
type act struct {
	name string
	do   func(store, active string) error
}

var acts = []act{
	{"cut to nothing", func(_, active string) error { return os.Truncate(active, 0) }},
	{"cut in the middle", func(_, active string) error {
		info, err := os.Stat(active)
		if err != nil {
			return err
		}
		return os.Truncate(active, info.Size()/2)
	}},
	{"cut to nothing and made large again", func(_, active string) error {
		info, err := os.Stat(active)
		if err != nil {
			return err
		}
		return errors.Join(os.Truncate(active, 0), os.Truncate(active, info.Size()))
	}},
	{"removed", func(_, active string) error { return os.Remove(active) }},
	{"replaced by another", func(_, active string) error {
		return errors.Join(os.Remove(active), os.WriteFile(active, []byte("mine"), 0o600))
	}},
	{"the whole store removed", func(store, _ string) error {
		for range 100 { // it makes files meanwhile
			if err := os.RemoveAll(store); err == nil {
				return nil
			}
		}
		return os.RemoveAll(store)
	}},
}

// undetected are acts that leave a file of the right name and size: nothing
// short of reading all of it again could tell. The host must live all the same.
func (a act) undetected() bool { return strings.Contains(a.name, "made large again") }

func runForeign(ctx context.Context, e *lab.Env) ([]lab.Row, error) {
	row := lab.Row{Tool: "foreign"}
	began := time.Now()
	for round := range e.Count(10, 1) {
		for n, a := range acts {
			for _, portable := range []bool{false, true} {
				dir := filepath.Join(e.Dir, fmt.Sprintf("%d-%d-%t", round, n, portable))
				c := workload.Config{Dir: dir, Seed: e.Seed, Life: round, DisableMmap: portable}
				if err := foreignOnce(ctx, c, a, &row); err != nil {
					return []lab.Row{row}, fmt.Errorf("%s: %w", a.name, err)
				}
			}
		}
		e.Say("%4d acts on the active segment, %d flaws", row.Runs, len(row.Problems))
	}
	row.Note = "what was in the file is gone, and nobody promised otherwise: each time the process lived on, with a poisoned log"
	row.Seconds = time.Since(began).Seconds()
	return []lab.Row{row}, nil
}

// foreignOnce waits until the process works, does it, and waits until the
// process has noticed.
func foreignOnce(ctx context.Context, c workload.Config, a act, row *lab.Row) error {
	l := workload.NewLedger()
	p, err := workload.Start(ctx, c, l)
	if err != nil {
		return err
	}
	<-p.Opened()
	poisoned := p.Heard("log is poisoned")
	time.Sleep(100 * time.Millisecond) // so that it is in the middle of things
	active, err := activeSegment(c.Dir)
	if err == nil {
		err = a.do(c.Dir, active)
	}
	noticed := false
	if err == nil {
		wait := 10 * time.Second
		if a.undetected() {
			wait = 200 * time.Millisecond
		}
		select {
		case <-poisoned:
			noticed = true
		case <-time.After(wait):
		case <-ctx.Done():
		}
		time.Sleep(50 * time.Millisecond) // poisoned, it has to live on
	}
	_ = p.Kill() // if it did not end by itself, which is looked at below
	end, werr := p.Wait()
	if err := errors.Join(ctx.Err(), err, werr); err != nil {
		return err
	}
	row.Runs++
	row.Acknowledged += l.Acknowledged
	what := a.name
	if c.DisableMmap {
		what += ", portable"
	}
	if end.Crashed() || end.State.Exited() {
		row.Problems = append(row.Problems, fmt.Sprintf("%s: the process ended with %v: %.2000s", what, end.State, end.Complaint))
	}
	if !noticed && !a.undetected() {
		row.Problems = append(row.Problems, what+": nobody noticed")
	}
	return nil
}

// activeSegment returns the file that frames go to. The newest may be one that
// was prepared for later: it is empty but for its header.
func activeSegment(store string) (string, error) {
	names, err := filepath.Glob(filepath.Join(store, "commitlog", "*"))
	if err != nil {
		return "", err
	}
	slices.Sort(names)
	for i := len(names) - 1; i >= 0; i-- {
		f, err := os.Open(names[i])
		if err != nil {
			return "", err
		}
		b := make([]byte, 128)
		n, err := f.ReadAt(b, 0)
		f.Close()
		if err == nil && n == len(b) && slices.ContainsFunc(b[64:], func(c byte) bool { return c != 0 }) {
			return names[i], nil
		}
	}
	return "", fs.ErrNotExist
}
