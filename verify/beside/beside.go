// Package beside runs tests that stand beside the engine, and know its insides, as
// tools of the lab. They log their rows (package labrow).
package beside

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/pocketmq/mq/internal/labrow"
	"github.com/pocketmq/mq/verify/lab"
)

// Crash is random histories of the log on a file system that forgets.
var Crash = lab.Tool{
	Name:  "crash",
	About: "random histories of the log: power cuts, kills and failing calls on a file system in memory",
	Run: test("./commitlog", "TestCrash$", func(e *lab.Env) []string {
		return []string{"-seeds", fmt.Sprint(e.Count(10_000, 20))}
	}),
}

// Power is the same for a whole broker.
var Power = lab.Tool{
	Name:  "power",
	About: "the same of a whole broker with consumers",
	Run: test(".", "TestPowerCuts$", func(e *lab.Env) []string {
		return []string{"-seeds", fmt.Sprint(e.Count(10_000, 20))}
	}),
}

// Mutilate changes bytes of files.
var Mutilate = lab.Tool{
	Name:  "mutilate",
	About: "every byte in use of every file cut, zeroed, overwritten or flipped",
	Run: test(".", "TestMutilate$", func(e *lab.Env) []string {
		if e.Quick {
			return []string{"-short"}
		}
		return []string{"-mutilate", "every", "-mutilate.seed", fmt.Sprint(e.Seed)}
	}),
}

// Soak is everything at once under the race detector.
var Soak = lab.Tool{
	Name:  "soak",
	About: "joins, resets, slow and failing handlers, retention, reopens, under the race detector",
	Run: func(ctx context.Context, e *lab.Env) ([]lab.Row, error) {
		length, args := "10m", []string{"-C", "verify"}
		if e.Quick {
			length = "3s"
		}
		if has, reason := raceDetector(ctx); has {
			args = append(args, "-race")
		} else if !e.Quick {
			return lab.Skip("soak", "%s", reason), nil
		}
		return run(ctx, e, args, "./soak", "TestSoak$", "-for", length, "-seed", fmt.Sprint(e.Seed>>33))
	},
}

// raceDetector tells whether there is one, and why not.
func raceDetector(ctx context.Context) (bool, string) {
	out, err := exec.CommandContext(ctx, "go", "env", "CGO_ENABLED", "CC").Output()
	set := strings.Fields(string(out))
	if err != nil || len(set) < 2 || set[0] != "1" {
		return false, "the race detector needs cgo"
	}
	if _, err := exec.LookPath(set[1]); err != nil {
		return false, "the race detector needs a C compiler"
	}
	return true, ""
}

func test(pkg, name string, args func(*lab.Env) []string) func(context.Context, *lab.Env) ([]lab.Row, error) {
	return func(ctx context.Context, e *lab.Env) ([]lab.Row, error) {
		return run(ctx, e, nil, pkg, name, args(e)...)
	}
}

// kept lines of what a test that failed printed at last are among the problems.
const kept = 600

// run runs one test. Its rows are those that it logs; one that fails without is a
// row, too.
func run(ctx context.Context, e *lab.Env, goArgs []string, pkg, name string, args ...string) ([]lab.Row, error) {
	began := time.Now()
	line := append([]string{"test"}, goArgs...)
	line = append(line, "-count=1", "-v", "-timeout", "24h", "-run", "^"+name, pkg)
	cmd := exec.CommandContext(ctx, "go", append(line, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Env = append(os.Environ(), "TMPDIR="+e.Dir)
	cmd.Stderr = e.Progress
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var rows []lab.Row
	var last []string
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 1<<24)
	for scanner.Scan() {
		if row, ok := labrow.Parse(scanner.Text()); ok {
			rows = append(rows, row)
			continue
		}
		if last = append(last, scanner.Text()); len(last) > kept {
			last = last[1:]
		}
		if text := strings.TrimSpace(scanner.Text()); strings.Contains(text, "so far") {
			e.Say("%s", text)
		}
	}
	err = errors.Join(scanner.Err(), cmd.Wait())
	switch {
	case ctx.Err() != nil:
		return rows, ctx.Err()
	case err != nil:
		rows = append(rows, lab.Row{Tool: strings.Trim(name, "^$"), Problems: []string{err.Error() + "\n" + strings.Join(last, "\n")}, Seconds: time.Since(began).Seconds()})
	case len(rows) == 0:
		return nil, fmt.Errorf("%s in %s logged no row", name, pkg)
	}
	return rows, nil
}
