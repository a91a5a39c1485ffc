// Command resume kills itself with SIGKILL, again and again, and shows that
// nothing acknowledged is lost and nothing acknowledged comes twice.
//
//	go run ./examples/resume          10 kills
//	go run ./examples/resume -quick   4 kills
//
// It starts itself as a child that sends numbered messages, pulls them and
// commits them, and that sends itself SIGKILL at a random moment, in the middle
// of whatever it is doing. The child reports each step through a pipe when, and
// not before, the call returned: what stands in the pipe is what the outside
// world was told. The next child opens the same store and goes on; the last one
// only reads what is left. The parent keeps the ledger:
//
//	sent       Send returned             the message has to come
//	committed  Commit returned           the message must not come again
//	in doubt   killed during the call    either is right
//
// It exits with 1 if the ledger does not come out even.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"
)

// A child is killed somewhere between these, counted from its start or from
// when its store was open: enough for some thousand messages.
const (
	shortestLife = 20 * time.Millisecond
	longestLife  = 250 * time.Millisecond
)

type options struct {
	dir    string
	rounds int
	seed   uint64
}

func main() {
	var o options
	var c childOptions
	quick := flag.Bool("quick", false, "4 kills")
	flag.StringVar(&o.dir, "dir", "", "`directory` of the store; it is kept (default: a temporary one)")
	flag.IntVar(&o.rounds, "kills", 10, "`number` of kills")
	flag.Uint64Var(&o.seed, "seed", rand.Uint64(), "`number` that the moments of the kills come from")
	flag.BoolVar(&c.child, childFlag[1:], false, "be the child (for the program itself)")
	flag.IntVar(&c.round, "round", 0, "of the child")
	flag.DurationVar(&c.life, "life", 0, "of the child, until it kills itself; 0: read what is left")
	flag.Parse()
	if *quick {
		o.rounds = 4
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if c.child {
		c.dir = o.dir
		err = c.run(ctx, os.Stdout)
	} else {
		err = run(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "resume:", err)
		stop()
		os.Exit(1)
	}
}

// run starts one child after another and keeps the ledger of their reports.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "pocketmq-resume-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	random := rand.New(rand.NewPCG(o.seed, 0))
	l := newLedger()
	fmt.Fprintf(out, "%d kills in %s, seed %d\n", o.rounds, o.dir, o.seed)
	for round := range o.rounds + 1 {
		life := shortestLife + time.Duration(random.Int64N(int64(longestLife-shortestLife)))
		if round == o.rounds {
			life = 0 // read what is left and end
		}
		if err := startChild(ctx, o.dir, round, life, l); err != nil {
			return err
		}
		fmt.Fprintln(out, l.summary(round, life))
	}
	if err := l.verdict(); err != nil {
		return fmt.Errorf("%w (seed %d)", err, o.seed)
	}
	fmt.Fprintf(out, "after %d kills: %d messages sent and %d commits acknowledged; none lost, none twice\n",
		o.rounds, len(l.sent), len(l.committed))
	return nil
}
