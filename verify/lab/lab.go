// Package lab runs the tools of the fault lab and prints what they found as one
// table. A tool is a Go function or, where it needs libraries of its own, a
// command of another module that prints its rows as JSON.
package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pocketmq/mq/internal/labrow"
)

// Tool breaks something and says what became of what was acknowledged.
type Tool struct {
	Name  string
	About string

	// Run does it. Rows that it has when it fails are printed all the same.
	Run func(context.Context, *Env) ([]Row, error)

	// FullOnly leaves the tool out of quick runs.
	FullOnly bool
}

// Env is how a tool runs.
type Env struct {
	Quick    bool   // a sample
	Runs     int    // how many, if the tool counts runs and this is not 0
	Seed     uint64 // of everything random
	Dir      string // for files; empty when the tool starts, and removed later
	Progress io.Writer
}

// Say prints a line of progress.
func (e *Env) Say(format string, args ...any) { fmt.Fprintf(e.Progress, format+"\n", args...) }

// Count returns how many runs are wanted.
func (e *Env) Count(full, quick int) int {
	switch {
	case e.Runs > 0:
		return e.Runs
	case e.Quick:
		return quick
	}
	return full
}

// Row is one line of the table.
type Row = labrow.Row

// Skip is the row of a tool that cannot run here.
func Skip(tool, format string, args ...any) []Row {
	return []Row{{Tool: tool, Skipped: fmt.Sprintf(format, args...)}}
}

// RunAll runs tools one after another. The error says that one could not do its
// work; what the rows say is for the caller.
func RunAll(ctx context.Context, tools []Tool, e Env) ([]Row, error) {
	var rows []Row
	var errs []error
	for _, t := range tools {
		if ctx.Err() != nil {
			break
		}
		e.Say("== %s: %s", t.Name, t.About)
		began := time.Now()
		mine, err := runOne(ctx, t, e)
		for i := range mine {
			r := &mine[i]
			if r.Seconds == 0 {
				r.Seconds = time.Since(began).Seconds()
			}
			if r.Skipped != "" {
				e.Say("skipped: %s: %s", r.Tool, r.Skipped)
			}
			for _, p := range r.Problems {
				e.Say("FOUND: %s: %s", r.Tool, p)
			}
		}
		rows = append(rows, mine...)
		if err != nil {
			e.Say("FAILED: %s: %v", t.Name, err)
			errs = append(errs, fmt.Errorf("%s: %w", t.Name, err))
		}
	}
	return rows, errors.Join(append(errs, ctx.Err())...)
}

// runOne runs a tool in an empty directory of its own.
func runOne(ctx context.Context, t Tool, e Env) (_ []Row, err error) {
	e.Dir, err = os.MkdirTemp(e.Dir, "pocketmq-"+t.Name+"-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(e.Dir)) }()
	return t.Run(ctx, &e)
}

// Print writes the table.
func Print(w io.Writer, rows []Row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "tool\truns\tacknowledged\tlost\tdelivered again\trefused to open\thistory: operations\terrors\tflaws\ts\t")
	for _, r := range rows {
		if r.Skipped != "" {
			fmt.Fprintf(t, "%s\tskipped\t-\t-\t-\t-\t-\t-\t-\t-\t\n", r.Tool)
			continue
		}
		operations, errs := "-", "-"
		if r.Operations > 0 {
			operations, errs = fmt.Sprint(r.Operations), fmt.Sprint(r.Errors)
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%d\t%.0f\t\n",
			r.Tool, r.Runs, r.Acknowledged, r.Lost, r.Again, r.Refused, operations, errs, len(r.Problems), r.Seconds)
	}
	t.Flush()
	for _, r := range rows {
		if note := r.Skipped + r.Note; note != "" {
			fmt.Fprintf(w, "%s: %s\n", r.Tool, note)
		}
	}
}

// Command is a tool in another module: go run, with what the Env says as flags,
// printing progress on its standard error and a JSON array of rows at the end.
func Command(dir string, pkg string) func(context.Context, *Env) ([]Row, error) {
	return func(ctx context.Context, e *Env) ([]Row, error) {
		args := []string{"run", "-C", dir, pkg, "-json", "-dir", e.Dir, "-seed", fmt.Sprint(e.Seed)}
		if e.Quick {
			args = append(args, "-quick")
		}
		if e.Runs > 0 {
			args = append(args, "-runs", fmt.Sprint(e.Runs))
		}
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = time.Minute
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, e.Progress
		runErr := cmd.Run()
		var rows []Row
		if err := json.NewDecoder(bufio.NewReader(&out)).Decode(&rows); err != nil {
			return nil, errors.Join(runErr, fmt.Errorf("reading its rows: %w", err))
		}
		return rows, nil // what is wrong is in the rows
	}
}

// Join puts several short things on one line.
func Join(parts ...string) string {
	kept := parts[:0]
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "; ")
}
