package mq

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/history"
	"github.com/pocketmq/mq/internal/labrow"
	"github.com/pocketmq/mq/internal/vfs"
)

var (
	mutilateAll  = flag.String("mutilate", "", "TestMutilate goes through every byte of the last 64 KiB in use of every file: 'turns' has each byte suffer one mutilation, 'every' all four")
	mutilateOnly = flag.String("mutilate.only", "", "a regular expression: TestMutilate keeps to the files whose path it matches")
	mutilateSeed = flag.Uint64("mutilate.seed", 0, "the seed of TestMutilate; 0 is a new one")
	mutilateCase = flag.String("mutilate.case", "", "the one case that TestMutilate is to go through, as it printed it")
)

// wound is one mutilation: of bytes [off, off+len) of a file.
type wound struct {
	file int
	kind string // cut, zero, noise, bit
	off  int64
	n    int64
	seed uint64
}

func (w wound) String() string {
	return fmt.Sprintf("%d:%s:%d:%d:%d", w.file, w.kind, w.off, w.n, w.seed)
}

var woundKinds = []string{"cut", "zero", "noise", "bit"}

// wound makes one at an offset of a file.
func (v *victim) wound(file int, kind string, off int64, rnd *rand.Rand) wound {
	w := wound{file: file, kind: kind, off: off, n: 1, seed: rnd.Uint64()}
	size := int64(len(v.files[file].data))
	switch kind {
	case "cut":
		w.n = size - off
	case "zero", "noise":
		w.n = min(size-off, 1+rnd.Int64N(1<<rnd.IntN(11)))
	}
	return w
}

// inflict returns the bytes with the wound, and whether it changed any.
func (w wound) inflict(data []byte) ([]byte, bool) {
	out := slices.Clone(data)
	rnd := rand.New(rand.NewPCG(w.seed, 1))
	switch w.kind {
	case "cut":
		return out[:w.off], true
	case "zero":
		clear(out[w.off : w.off+w.n])
	case "noise":
		for i := range out[w.off : w.off+w.n] {
			out[w.off+int64(i)] = byte(rnd.Uint32())
		}
	case "bit":
		out[w.off] ^= 1 << rnd.IntN(8)
	}
	return out, !bytes.Equal(out, data)
}

// tally is what came of many wounds.
type tally struct {
	cases, same, missing, reported, refused, panics, unreported, harmless, repaired, salvaged, operations atomic.Int64

	mu      sync.Mutex // protects classes
	classes map[history.Class]int
}

// judged counts what a history was continued with, and the errors found in it.
func (n *tally) judged(r *history.Report, before int) {
	n.operations.Add(int64(r.Operations() - before))
	n.mu.Lock()
	defer n.mu.Unlock()
	for class, count := range r.Counts {
		n.classes[class] += count
	}
}

func newTally() *tally { return &tally{classes: map[history.Class]int{}} }

func (n *tally) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errors []string
	for _, class := range history.Classes {
		errors = append(errors, fmt.Sprintf("%s %d", class, n.classes[class]))
	}
	return fmt.Sprintf("%d cases, %d of them changed nothing; opening refused %d, panics %d; "+
		"%d operations judged, errors: %s; cases with something lost %d (all by their own bytes), of which not reported %d; "+
		"Verify saw %d, the other %d did not matter; repaired %d, with %d messages",
		n.cases.Load(), n.same.Load(), n.refused.Load(), n.panics.Load(),
		n.operations.Load(), strings.Join(errors, ", "), n.missing.Load(), n.unreported.Load(),
		n.reported.Load(), n.harmless.Load(), n.repaired.Load(), n.salvaged.Load())
}

// TestMutilate: whatever is cut, zeroed, overwritten or flipped in whatever file,
// the store opens, and nothing but what was hit is lost, and that is reported; no
// message is ever a wrong one. What consumers get is judged by package history,
// and what a history has no words for in opened, reported and mended.
func TestMutilate(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{true, false} {
		t.Run(map[bool]string{true: "closed", false: "killed"}[clean], func(t *testing.T) {
			t.Parallel()
			v := makeVictim(t, clean)
			if *mutilateCase != "" {
				w := wound{}
				parts := strings.Split(*mutilateCase, ":")
				w.kind = parts[1]
				_, err := fmt.Sscanf(strings.Join(slices.Delete(parts, 1, 2), " "), "%d %d %d %d", &w.file, &w.off, &w.n, &w.seed)
				require.NoError(t, err)
				t.Log(v.files[w.file].name)
				require.NoError(t, v.suffer(t.Context(), w, newTally(), true))
				return
			}
			v.sweep(t)
		})
	}
}

func (v *victim) sweep(t *testing.T) {
	seed := *mutilateSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	count := newTally()
	wounds := make(chan wound, 64)
	var workers sync.WaitGroup
	var failures atomic.Int64
	began := time.Now()
	for range 8 * runtime.GOMAXPROCS(0) { // each waits for its store now and then
		workers.Go(func() {
			for w := range wounds {
				if err := v.suffer(t.Context(), w, count, w.seed%32 == 0); err != nil && failures.Add(1) <= 5 {
					t.Errorf("%s, %s: %v\nagain: go test -run 'TestMutilate/%s' -mutilate.case %v . (if the store is made the same)", v.files[w.file].name, w, err, v.name, w)
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	if *mutilateAll != "" {
		v.everyByte(rnd, wounds, count)
	} else {
		n := 800
		if testing.Short() {
			n = 200
		}
		for range n {
			file := rnd.IntN(len(v.files))
			wounds <- v.wound(file, woundKinds[rnd.IntN(4)], rnd.Int64N(v.files[file].used), rnd)
		}
	}
	close(wounds)
	workers.Wait()
	labrow.Row{
		Tool: "mutilate, " + v.name, Runs: count.cases.Load(), Acknowledged: int64(len(v.sent)), Operations: count.operations.Load(),
		Note: fmt.Sprintf("seed %d, %d files: %v", seed, len(v.files), count), Seconds: time.Since(began).Seconds(),
	}.Log(t)
}

// everyByte goes through the last 64 KiB in use of every file, and random places
// before them.
func (v *victim) everyByte(rnd *rand.Rand, wounds chan<- wound, count *tally) {
	only := regexp.MustCompile(*mutilateOnly)
	for i, f := range v.files {
		if !only.MatchString(f.name) {
			continue
		}
		first := max(0, f.used-64*kib)
		for off := first; off < f.used; off++ {
			if off%4096 == 0 {
				fmt.Printf("%s: %s at %d; so far %v\n", v.name, f.name, off, count)
			}
			for _, kind := range woundKinds {
				if *mutilateAll == "every" || kind == woundKinds[off%int64(len(woundKinds))] {
					wounds <- v.wound(i, kind, off, rnd)
				}
			}
		}
		for range min(first, 4096) {
			wounds <- v.wound(i, woundKinds[rnd.IntN(4)], rnd.Int64N(first), rnd)
		}
	}
}

// suffer opens the store with a wound and looks at everything.
func (v *victim) suffer(ctx context.Context, w wound, count *tally, mend bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			count.panics.Add(1)
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	count.cases.Add(1)
	data, changed := w.inflict(v.files[w.file].data)
	if !changed {
		count.same.Add(1)
		return nil
	}
	mem := v.mem.Clone()
	if err := put(mem, v.files[w.file].name, data); err != nil {
		return err
	}
	vr, err := newVerifier(ctx, mem, "store", nil)
	if err == nil {
		err = vr.run()
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	saw := vr.report.String() != v.before
	if mend {
		if err := v.mended(ctx, mem, w, count); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
	}
	return v.opened(ctx, mem, w, saw, count)
}

// opened opens the store and has groups consume all of it.
func (v *victim) opened(ctx context.Context, mem *vfs.Mem, w wound, saw bool, count *tally) error {
	b := newBroker(victimOptions(), mem, "store")
	b.journalFS = mem
	var missed []error
	var mu sync.Mutex // protects missed
	b.opts.Hooks = &Hooks{Missed: func(i MissedInfo) {
		mu.Lock()
		defer mu.Unlock()
		missed = append(missed, i.Err)
	}}
	if err := b.open(); err != nil {
		count.refused.Add(1)
		return errors.Join(fmt.Errorf("does not open: %w", err), b.release())
	}
	defer b.Close() // it cannot write a checkpoint
	x, err := v.judged(ctx, b, w, false, count)
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w\nrecovery %+v, missed %v", err, b.Recovery(), missed)
	}
	return x.reported(b.Recovery(), w, missed, saw, count)
}

// judged has groups consume a store, and package history judge what they got.
func (v *victim) judged(ctx context.Context, b *Broker, w wound, repaired bool, count *tally) (*witness, error) {
	judge := v.history.Clone()
	judge.Add(v.fate(w, repaired)...)
	x, err := v.look(ctx, b, judge)
	r := judge.Report()
	count.judged(r, v.made)
	if r.Errors() > 0 {
		err = errors.Join(fmt.Errorf("%v: %s", r.Counts, r.Proof(r.Anomalies[0])), err)
	}
	return x, err
}

// reported demands that what is lost was reported.
func (x *witness) reported(r Recovery, w wound, missed []error, saw bool, count *tally) error {
	if saw {
		count.reported.Add(1)
	} else {
		count.harmless.Add(1)
	}
	lost, acks := x.lost(), x.judge.Report().Repeated
	if len(lost) == 0 && acks == 0 {
		return nil
	}
	count.missing.Add(1)
	if !saw {
		count.unreported.Add(1)
		return fmt.Errorf("%d messages and %d acks lost, and Verify sees nothing", len(lost), acks)
	}
	proven := x.proven(w)
	for _, m := range lost {
		if m.behind > proven {
			continue
		}
		var bad *CorruptionError
		located := len(r.Corrupt) > 0
		for _, err := range missed {
			located = located || errors.As(err, &bad) && bad.File != ""
		}
		if !located {
			count.unreported.Add(1)
			return fmt.Errorf("%v offset %d at %d was synced and is lost; recovery %+v, missed %v", m.Topic, m.Offset, m.from, r, missed)
		}
	}
	return nil
}

// mended repairs the store and has groups consume the new one: what is in it is
// what was sent, and all of it whose own bytes are whole.
func (v *victim) mended(ctx context.Context, mem *vfs.Mem, w wound, count *tally) error {
	r, err := repair(ctx, mem, "store", "dst", nil)
	if err != nil {
		return err
	}
	vr, err := newVerifier(ctx, mem, "dst", nil)
	if err == nil {
		err = vr.run()
	}
	if err != nil {
		return err
	}
	for _, p := range vr.report.Problems {
		// In memory there is no journal.
		if p.Kind != Hole && p.Kind != DamagedJournal && p.File != "journal" && !(p.Kind == TornTail && strings.Contains(p.Detail, "shorter")) {
			return fmt.Errorf("the new store: %v", p)
		}
	}
	b := newBroker(victimOptions(), mem, "dst")
	b.journalFS = mem
	if err := b.open(); err != nil {
		return errors.Join(err, b.release())
	}
	defer b.Close()
	if len(b.Recovery().Corrupt)+len(b.Recovery().Cut) > 0 {
		return fmt.Errorf("the new store: %+v", b.Recovery())
	}
	if end := b.log.Written(); end < v.proven(w) {
		return fmt.Errorf("the new store goes on at %d: ids from below %d are in use", end, v.proven(w))
	}
	x, err := v.judged(ctx, b, w, true, count)
	if err != nil {
		return fmt.Errorf("%w\nrepair %v", err, r)
	}
	count.repaired.Add(1)
	count.salvaged.Add(int64(len(v.sent) - len(x.lost())))
	return b.Check(ctx)
}
