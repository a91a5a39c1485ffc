package main

import (
	"context"
	"runtime"
	"time"
)

// bench is what every figure needs to know.
type bench struct {
	dir      string
	pairs    int
	share    int // of the messages: one in so many
	progress *progress
}

// count is how many messages a run has, of those that a full one has.
func (b *bench) count(full int) int { return max(full/b.share, queues) }

// timed is one side of a pair.
type timed struct {
	name   string
	writes int64 // bytes that a run will put into files, roughly
	run    func(context.Context) (time.Duration, error)
}

// paired is the seconds of each run.
type paired struct {
	reference, engine []float64
}

// measurePairs runs reference and engine in turn: this machine may be twice as
// fast a minute later, and what is compared has to be neighbours in time.
func (b *bench) measurePairs(ctx context.Context, reference, engine timed) (paired, error) {
	var p paired
	for i := range b.pairs {
		for _, side := range []struct {
			timed
			to *[]float64
		}{{reference, &p.reference}, {engine, &p.engine}} {
			if err := ctx.Err(); err != nil {
				return p, err
			}
			b.progress.show("pair %d of %d, %s", i+1, b.pairs, side.name)
			if err := b.warm(side.writes); err != nil {
				return p, err
			}
			runtime.GC() // what was before is not this run's garbage
			took, err := side.run(ctx)
			if err != nil {
				return p, err
			}
			*side.to = append(*side.to, took.Seconds())
		}
	}
	return p, nil
}

// throughput makes a result of pairs in which each run moved n messages: the
// ratio is engine to reference in messages per second.
func (p paired) throughput(what string, n int, target float64) result {
	r := result{What: what, Unit: "messages/s", Target: target, atLeast: true}
	for i := range p.engine {
		r.ratios = append(r.ratios, p.reference[i]/p.engine[i])
	}
	r.set(float64(n)/median(p.engine), float64(n)/median(p.reference))
	return r
}

// duration makes a result of the same pairs in which the ratio is engine to
// reference in time.
func (p paired) duration(what string, n int, target float64) result {
	r := result{What: what, Unit: "µs/message", Target: target}
	for i := range p.engine {
		r.ratios = append(r.ratios, p.engine[i]/p.reference[i])
	}
	r.set(median(p.engine)*1e6/float64(n), median(p.reference)*1e6/float64(n))
	return r
}

// set fills the figures. The ratio is the median of the pairs' ratios, not the
// ratio of the medians: a pair is what was measured at one time.
func (r *result) set(value, reference float64) {
	ratio := median(r.ratios)
	r.Value, r.Reference, r.Ratio = value, &reference, &ratio
	r.judge()
}
