package record

import (
	"encoding/binary"
	"time"
)

// A retry policy, part of a group's payload, all numbers varints:
//
//	+----------+-------+---------------------------------------------+
//	| attempts | shape | 1: count, count × delay                     |
//	|          |       | 2: initial, limit, jitter                   |
//	+----------+-------+---------------------------------------------+
//	attempts: 0 as each consumer has it, 1 without limit, n+1: n deliveries
//	shape: 0 as each consumer has it, 1 table, 2 exponential
//	delays in nanoseconds, jitter in millionths
const (
	shapeNone = iota
	shapeTable
	shapeExponential
)

// Limits of what a policy can hold.
const (
	// MaxDelays is how many delays a table can have.
	MaxDelays = 1 << 10

	// MaxDelay is the longest delay, a little over ten years.
	MaxDelay = 3660 * 24 * time.Hour

	// JitterUnit is the jitter that is all of a delay.
	JitterUnit = 1_000_000
)

// Policy says how often messages of a group are tried, and when again.
type Policy struct {
	Attempts int             // 0: as each consumer has it; -1: no limit
	Delays   []time.Duration // a table; the last goes on

	// An exponential delay, if Initial is set.
	Initial, Limit time.Duration
	Jitter         int // in millionths
}

func (p *Policy) flaw() string {
	switch {
	case p == nil:
		return ""
	case p.Attempts < -1 || p.Attempts >= MaxAttempts:
		return "attempts out of range"
	case len(p.Delays) > MaxDelays:
		return "too many delays"
	case len(p.Delays) > 0 && p.Initial != 0:
		return "two kinds of delay"
	case p.Initial < 0 || p.Initial > MaxDelay || p.Jitter < 0 || p.Jitter > JitterUnit:
		return "initial delay or jitter out of range"
	case p.Initial == 0 && (p.Limit != 0 || p.Jitter != 0):
		return "exponential without an initial delay"
	case p.Initial > 0 && (p.Limit < p.Initial || p.Limit > MaxDelay):
		return "longest delay out of range"
	}
	for _, d := range p.Delays {
		if d < 0 || d > MaxDelay {
			return "delay out of range"
		}
	}
	return ""
}

func (p *Policy) shape() byte {
	switch {
	case len(p.Delays) > 0:
		return shapeTable
	case p.Initial > 0:
		return shapeExponential
	}
	return shapeNone
}

// attempts is Attempts as it is written.
func (p *Policy) attempts() uint64 {
	switch {
	case p.Attempts == 0:
		return 0
	case p.Attempts < 0:
		return 1
	}
	return uint64(p.Attempts) + 1
}

func policyLen(p *Policy) int {
	if p == nil {
		return 0
	}
	n := uvarintLen(p.attempts()) + 1
	switch p.shape() {
	case shapeTable:
		n += uvarintLen(uint64(len(p.Delays)))
		for _, d := range p.Delays {
			n += uvarintLen(uint64(d))
		}
	case shapeExponential:
		n += uvarintLen(uint64(p.Initial)) + uvarintLen(uint64(p.Limit)) + uvarintLen(uint64(p.Jitter))
	}
	return n
}

func appendPolicy(out []byte, p *Policy) []byte {
	if p == nil {
		return out
	}
	out = binary.AppendUvarint(out, p.attempts())
	out = append(out, p.shape())
	switch p.shape() {
	case shapeTable:
		out = binary.AppendUvarint(out, uint64(len(p.Delays)))
		for _, d := range p.Delays {
			out = binary.AppendUvarint(out, uint64(d))
		}
	case shapeExponential:
		out = binary.AppendUvarint(out, uint64(p.Initial))
		out = binary.AppendUvarint(out, uint64(p.Limit))
		out = binary.AppendUvarint(out, uint64(p.Jitter))
	}
	return out
}

func (r *reader) policy() *Policy {
	p := new(Policy)
	switch n := r.uvarint(MaxAttempts + 1); {
	case n == 1:
		p.Attempts = -1
	case n > 1:
		p.Attempts = int(n) - 1
	}
	switch r.byte() {
	case shapeNone:
	case shapeTable:
		n := r.count(1)
		if n == 0 || n > MaxDelays {
			r.fail("number of delays out of range")
			return p
		}
		p.Delays = make([]time.Duration, n)
		for i := range p.Delays {
			p.Delays[i] = r.duration()
		}
	case shapeExponential:
		if p.Initial = r.duration(); p.Initial == 0 {
			r.fail("no initial delay")
		}
		p.Limit, p.Jitter = r.duration(), int(r.uvarint(JitterUnit+1))
	default:
		if r.err == nil {
			r.err, r.rest = unknown(r.kind, "shape of a policy"), nil
		}
	}
	return p
}

func (r *reader) duration() time.Duration { return time.Duration(r.uvarint(uint64(MaxDelay) + 1)) }
