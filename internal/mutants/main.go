// Command mutants asks whether the tests would notice. For each row of
// mutants.txt it breaks one line of the engine, runs the test that guards the
// promise, and demands that it fails.
//
//	go run ./internal/mutants                    all of them
//	go run ./internal/mutants -run 'ack|offset'  those whose id matches
//	go run ./internal/mutants -list              what there is
//
// The tree itself is never touched: the go command is told to read the broken
// file instead of the one that is there (-overlay), so everything else comes out
// of the build cache. Rows whose test reads the source itself get a copy of the
// tree.
//
// It exits with 1 if a mutant survives, and also if one does not compile,
// crashes the test binary, or no longer finds its line: then nothing was proven.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

func main() {
	run := flag.String("run", "", "only mutants whose id matches this `regexp`")
	list := flag.Bool("list", false, "print the mutants and what they stand for")
	jobs := flag.Int("jobs", 2, "mutants to try at the same `time`")
	shard := flag.String("shard", "1/1", "only the `k/n`th part: for several machines")
	limit := flag.Duration("timeout", 2*time.Minute, "time for one test")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o := options{pattern: *run, list: *list, jobs: max(*jobs, 1), limit: *limit, shard: *shard}
	if err := hunt(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

type options struct {
	pattern string
	list    bool
	jobs    int
	limit   time.Duration
	shard   string
}

// hunt does what the command promises; a survivor is an error.
func hunt(ctx context.Context, o options, out io.Writer) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	rows, err := loadTable(root)
	if err != nil {
		return err
	}
	pattern, err := regexp.Compile(o.pattern)
	if err != nil {
		return fmt.Errorf("mutants: -run: %w", err)
	}
	chosen := rows[:0:0]
	for _, m := range rows {
		if pattern.MatchString(m.id) {
			chosen = append(chosen, m)
		}
	}
	if chosen, err = part(chosen, o.shard); err != nil {
		return err
	}
	if o.list {
		for _, m := range chosen {
			fmt.Fprintf(out, "%-28s %s\n", m.id, m.keeps)
		}
		return nil
	}
	if len(chosen) == 0 {
		return fmt.Errorf("mutants: none matches %q", o.pattern)
	}
	h := hunter{root: root, o: o, out: out, total: len(chosen), work: make(chan mutant), proven: map[string]error{}}
	return h.all(ctx, chosen)
}

// part returns the kth of n parts of the rows, every nth of them. Neighbours
// often share a test, so each part has some of the slow ones.
func part(rows []mutant, shard string) ([]mutant, error) {
	var k, n int
	if _, err := fmt.Sscanf(shard, "%d/%d", &k, &n); err != nil || k < 1 || k > n {
		return nil, fmt.Errorf("mutants: -shard %s: want 1/4, 2/4 …", shard)
	}
	var some []mutant
	for i := k - 1; i < len(rows); i += n {
		some = append(some, rows[i])
	}
	return some, nil
}

// hunter tries mutants, several at the same time.
type hunter struct {
	root string
	o    options

	work chan mutant // closed when all are handed out

	outMu    sync.Mutex // guards all below
	out      io.Writer
	total    int
	tried    int
	caught   int
	escaped  []string         // ids of those that were not caught
	proven   map[string]error // per test: what it said about the tree as it is
	failures []error
}

func (h *hunter) all(ctx context.Context, rows []mutant) error {
	began := time.Now()
	var workers sync.WaitGroup
	for range min(h.o.jobs, len(rows)) {
		workers.Add(1)
		go h.runWorker(ctx, &workers)
	}
	for _, m := range rows {
		if ctx.Err() != nil {
			break
		}
		h.work <- m
	}
	close(h.work)
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	fmt.Fprintf(h.out, "%d of %d caught in %.0f s\n", h.caught, len(rows), time.Since(began).Seconds())
	if len(h.escaped) > 0 {
		return errors.Join(append(h.failures, fmt.Errorf("mutants: not caught: %s", strings.Join(h.escaped, ", ")))...)
	}
	return nil
}

func (h *hunter) runWorker(ctx context.Context, workers *sync.WaitGroup) {
	defer workers.Done()
	for m := range h.work {
		began := time.Now()
		verdict, err := h.try(ctx, m)
		h.report(m, verdict, err, time.Since(began))
	}
}

func (h *hunter) report(m mutant, verdict string, err error, took time.Duration) {
	h.outMu.Lock()
	defer h.outMu.Unlock()
	h.tried++
	fmt.Fprintf(h.out, "%3d/%d  %-9s %5.1f s  %-28s %s\n", h.tried, h.total, verdict, took.Seconds(), m.id, m.keeps)
	if err != nil {
		h.failures = append(h.failures, err)
	}
	if verdict == caught {
		h.caught++
	} else {
		h.escaped = append(h.escaped, m.id)
	}
}

// Verdicts on one mutant.
const (
	caught   = "caught"
	survived = "SURVIVED"
	failed   = "ERROR" // nothing was proven
)

// try runs the row's test with the line broken.
func (h *hunter) try(ctx context.Context, m mutant) (verdict string, err error) {
	if err := h.prove(ctx, m); err != nil {
		return failed, err
	}
	dir, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return failed, fmt.Errorf("mutants: %s: %w", m.id, err)
	}
	defer os.RemoveAll(dir)
	root, overlay := h.root, ""
	if m.copy {
		root, err = dir, h.breakCopy(dir, m)
	} else {
		overlay, err = h.breakLine(dir, m)
	}
	if err != nil {
		return failed, err
	}
	output, err := h.test(ctx, root, m, overlay)
	verdict = judge(output, err)
	if verdict != failed {
		return verdict, nil
	}
	if err == nil {
		err = errors.New("no tests to run")
	}
	return failed, fmt.Errorf("mutants: %s: the test did not judge: %w\n%s", m.id, err, tail(output))
}

// breakLine puts the broken file into dir, beside the overlay that names it.
func (h *hunter) breakLine(dir string, m mutant) (overlay string, err error) {
	path, text, err := h.broken(m)
	if err != nil {
		return "", err
	}
	broken := filepath.Join(dir, filepath.Base(path))
	index, err := json.Marshal(map[string]any{"Replace": map[string]string{path: broken}})
	if err != nil {
		return "", fmt.Errorf("mutants: %s: %w", m.id, err)
	}
	overlay = filepath.Join(dir, "overlay.json")
	err = errors.Join(os.WriteFile(broken, []byte(text), 0o600), os.WriteFile(overlay, index, 0o600))
	if err != nil {
		return "", fmt.Errorf("mutants: %s: %w", m.id, err)
	}
	return overlay, nil
}

// breakCopy makes dir a copy of the tree in which the line is broken.
func (h *hunter) breakCopy(dir string, m mutant) error {
	_, text, err := h.broken(m)
	if err == nil {
		err = copyTree(dir, h.root)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, filepath.FromSlash(m.file)), []byte(text), 0o600)
	}
	if err != nil {
		return fmt.Errorf("mutants: %s: %w", m.id, err)
	}
	return nil
}

// broken returns the path of the row's file, and its text with the line broken.
func (h *hunter) broken(m mutant) (path, text string, err error) {
	path = filepath.Join(h.root, filepath.FromSlash(m.file))
	src, err := os.ReadFile(path)
	if err != nil {
		return "", "", fmt.Errorf("mutants: %s: %w", m.id, err)
	}
	text, err = m.apply(string(src))
	return path, text, err
}

// copyTree copies what a test of the root module reads: no history, no programs
// that were built, and none of the modules nested in it.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".")
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil || hidden || rel == "bin" {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if hidden || !d.Type().IsRegular() || strings.HasPrefix(rel, "go.work") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
}

// prove checks once per test that it passes on the tree as it is: a test that
// fails anyway would catch every mutant. The go command remembers the answer, so
// it costs something only after a change.
func (h *hunter) prove(ctx context.Context, m mutant) error {
	key := strings.Join(m.test, " ")
	h.outMu.Lock()
	err, known := h.proven[key]
	h.outMu.Unlock()
	if known {
		return err
	}
	output, err := h.test(ctx, h.root, m, "")
	if err == nil && strings.Contains(output, "[no tests to run]") {
		err = errors.New("no tests to run")
	}
	if err != nil {
		err = fmt.Errorf("mutants: go test %s fails without a mutation: %w\n%s", key, err, tail(output))
	}
	h.outMu.Lock()
	h.proven[key] = err
	h.outMu.Unlock()
	return err
}

// test runs the row's test in the tree at root, with a file replaced if there is
// an overlay. It travels in the environment, so that a test which builds a
// program of its own builds the broken one.
func (h *hunter) test(ctx context.Context, root string, m mutant, overlay string) (string, error) {
	// A test binary ends itself at the limit; the go command around it gets
	// another half of it to build.
	ctx, cancel := context.WithTimeout(ctx, h.o.limit+h.o.limit/2)
	defer cancel()
	// A broken line need not please vet, which takes a third of the time.
	args := append([]string{"test", "-failfast", "-vet=off", "-timeout=" + h.o.limit.String()}, m.test...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	if overlay != "" {
		cmd.Env = append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	output, err := cmd.CombinedOutput()
	return string(output), err
}

// judge reads what `go test` said. Only a test that failed as a test counts: a
// mutant that does not compile, kills the binary or hangs is noticed by luck.
func judge(output string, err error) string {
	switch {
	case err == nil && !strings.Contains(output, "[no tests to run]"):
		return survived
	case err != nil && strings.Contains(output, "--- FAIL"):
		return caught
	default:
		return failed
	}
}

// tail is the end of a test's output, enough to see why.
func tail(output string) string {
	const limit = 2000
	if len(output) > limit {
		output = "…" + output[len(output)-limit:]
	}
	return output
}

// findRoot returns the directory of the root module, whatever directory of it
// the command was started in.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("mutants: %w", err)
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module github.com/pocketmq/mq\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("mutants: started outside the repository")
		}
		dir = filepath.Dir(dir)
	}
}
