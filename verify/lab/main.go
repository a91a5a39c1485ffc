package lab

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// Main is the main function of a program that runs these tools: all, or those
// named by its arguments. It exits with 1 if a promise was broken or a tool
// could not do its work.
func Main(tools []Tool) {
	e := Env{}
	asJSON := flag.Bool("json", false, "print the rows as JSON on standard output, and progress on standard error")
	list := flag.Bool("list", false, "print what tools there are")
	flag.BoolVar(&e.Quick, "quick", false, "a sample of each")
	flag.IntVar(&e.Runs, "runs", 0, "`number` of kills, cuts or other runs of each tool (default: its own)")
	flag.Uint64Var(&e.Seed, "seed", rand.Uint64(), "`number` that everything random comes from, as far as the tool can choose")
	flag.StringVar(&e.Dir, "dir", "", "`directory` for stores and disk images (default: that of temporary files)")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: %s [flags] [tool...]\n\n", os.Args[0])
		printTools(flag.CommandLine.Output(), tools)
		flag.PrintDefaults()
	}
	flag.Parse()
	if *list {
		printTools(os.Stdout, tools)
		return
	}
	chosen, err := choose(tools, flag.Args(), e.Quick)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	isolate(ctx)
	e.Progress = os.Stdout
	if *asJSON {
		e.Progress = os.Stderr
	}
	rows, err := RunAll(ctx, chosen, e)
	stop()
	if *asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(rows) // nobody is there to read it
	} else {
		fmt.Println()
		Print(os.Stdout, rows)
	}
	if err != nil || slices.ContainsFunc(rows, func(r Row) bool { return r.Failed() }) {
		fmt.Fprintf(os.Stderr, "lab: failed, seed %d\n", e.Seed)
		os.Exit(1)
	}
}

func printTools(w io.Writer, tools []Tool) {
	for _, t := range tools {
		fmt.Fprintf(w, "  %-10s %s\n", t.Name, t.About)
	}
}

func choose(tools []Tool, names []string, quick bool) ([]Tool, error) {
	var chosen []Tool
	for _, name := range names {
		i := slices.IndexFunc(tools, func(t Tool) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no tool %q", name)
		}
		chosen = append(chosen, tools[i])
	}
	if len(names) > 0 {
		return chosen, nil
	}
	for _, t := range tools {
		if !quick || !t.FullOnly {
			chosen = append(chosen, t)
		}
	}
	return chosen, nil
}
