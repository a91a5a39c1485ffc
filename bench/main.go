// Command bench measures PocketMQ against what the machine itself can do, in
// the same run, and prints ratios: absolute figures move with the machine and
// its neighbours, a ratio taken side by side much less.
//
//	go run ./bench                  everything
//	go run ./bench -quick           less of it, in under a minute
//	go run ./bench -run P1,P3       some of it
//	go run ./bench -dir /mnt/data   on another file system
//	go run ./bench -json            one object per line
//
// Each figure has a number (P1, P3, …), a file of its own that says what is
// measured against what, and a target. A figure that misses its target is
// printed as such; it does not make the program fail.
//
// The file system matters: by default the stores lie in the directory for
// temporary files, and where that is kept in memory, syncs cost nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
)

// figure is one number of the list: it measures and says what came of it, in
// one result or, where it has several parts, in more.
type figure struct {
	id      string
	measure func(context.Context, *bench) ([]result, error)
}

// figures are in the order in which they are printed.
var figures = []figure{
	{"P1", measureEndToEnd},
	{"P3", measureSend},
	{"P9", measureAllocations},
}

func main() {
	var o options
	flag.StringVar(&o.run, "run", "", "comma-separated `list` of figures, such as P1,P3 (default: all)")
	flag.StringVar(&o.dir, "dir", "", "`directory` for the stores, removed at the end (default: that for temporary files)")
	flag.BoolVar(&o.quick, "quick", false, "3 pairs instead of 7, and smaller ones")
	flag.BoolVar(&o.json, "json", false, "print one JSON object per line instead of a table")
	flag.Parse()
	chosen, err := choose(o.run)
	if err == nil && flag.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.measure(ctx, chosen, os.Stdout, newProgress(os.Stderr)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

type options struct {
	run, dir    string
	quick, json bool
}

// choose returns the figures of a list, all for an empty one.
func choose(list string) ([]figure, error) {
	if list == "" {
		return figures, nil
	}
	var chosen []figure
	for id := range strings.SplitSeq(list, ",") {
		id = strings.ToUpper(strings.TrimSpace(id))
		i := slices.IndexFunc(figures, func(f figure) bool { return f.id == id })
		if i < 0 {
			return nil, fmt.Errorf("no figure %q", id)
		}
		chosen = append(chosen, figures[i])
	}
	return chosen, nil
}

func (o *options) measure(ctx context.Context, chosen []figure, out io.Writer, p *progress) (err error) {
	dir, err := os.MkdirTemp(o.dir, "pocketmq-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{dir: dir, pairs: 7, share: 1, progress: p}
	if o.quick {
		b.pairs, b.share = 3, 5
	}
	var all []result
	for _, f := range chosen {
		results, err := b.measure(ctx, f)
		if err != nil {
			return err
		}
		if o.json { // as they come: a long run can be watched
			err = writeJSON(out, results)
		}
		if err != nil {
			return err
		}
		all = append(all, results...)
	}
	if o.json {
		return nil
	}
	fmt.Fprintf(out, "%s %s/%s, %d CPUs, medians of %d pairs, in %s\n\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), b.pairs, dir)
	return writeTable(out, all)
}

// measure runs one figure.
func (b *bench) measure(ctx context.Context, f figure) ([]result, error) {
	b.progress.figure = f.id
	defer b.progress.clear()
	results, err := f.measure(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.id, err)
	}
	for i := range results {
		results[i].ID = f.id
	}
	return results, nil
}
