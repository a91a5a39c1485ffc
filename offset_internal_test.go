package mq

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// bitmap is what progress is for, done the plain way.
type bitmap []bool

func (b bitmap) add(s span) (news int64) {
	for off := max(s.From, 0); off < s.To; off++ {
		if !b[off] {
			b[off] = true
			news++
		}
	}
	return news
}

func (b bitmap) committed() (off Offset) {
	for int(off) < len(b) && b[off] {
		off++
	}
	return off
}

func (b bitmap) ahead() (spans []span) {
	for off := b.committed(); int(off) < len(b); off++ {
		switch last := len(spans) - 1; {
		case !b[off]:
		case last >= 0 && spans[last].To == off:
			spans[last].To++
		default:
			spans = append(spans, span{From: off, To: off + 1})
		}
	}
	return spans
}

// TestProgressIsABitmap: random spans, small and large, overlapping or not, in
// random order; after each step the two say the same.
func TestProgressIsABitmap(t *testing.T) {
	t.Parallel()
	for range 200 {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 1))
		size := 1 + random.IntN(120)
		var p progress
		plain := make(bitmap, size)
		longest := 1 + random.IntN(size)
		for range 100 {
			from := Offset(random.IntN(size + 1))
			s := span{From: from, To: min(from+Offset(random.IntN(longest+1)), Offset(size))}
			require.Equal(t, plain.add(s), p.add(s), "seed %d: news of %v", seed, s)
			require.Equal(t, plain.committed(), p.committed, "seed %d: after %v", seed, s)
			if !slices.Equal(plain.ahead(), p.ahead) {
				t.Fatalf("seed %d: after %v: %v, want %v", seed, s, p.ahead, plain.ahead())
			}
			var consumed int64
			for off, done := range plain {
				if done != p.contains(Offset(off)) {
					t.Fatalf("seed %d: offset %d: contains is %v", seed, off, !done)
				}
				if done {
					consumed++
				}
			}
			require.Equal(t, consumed, p.consumed(), "seed %d", seed)
		}
	}
}

// TestProgressInOrderTakesNoMemory: the usual case is one number.
func TestProgressInOrderTakesNoMemory(t *testing.T) {
	t.Parallel()
	var p progress
	for off := Offset(0); off < 1000; off++ {
		require.Equal(t, int64(1), p.add(span{From: off, To: off + 1}))
		require.Zero(t, p.add(span{From: off, To: off + 1}), "again is no news")
	}
	require.Equal(t, Offset(1000), p.committed)
	require.Nil(t, p.ahead)
}

func TestProgressOfNonsense(t *testing.T) {
	t.Parallel()
	p := progress{committed: 5, ahead: []span{{From: 7, To: 9}}}
	for _, s := range []span{{}, {From: 3, To: 3}, {From: 9, To: 7}, {From: 0, To: 5}, {From: 7, To: 8}} {
		require.Zero(t, p.add(s), "%v", s)
	}
	require.Equal(t, progress{committed: 5, ahead: []span{{From: 7, To: 9}}}, p)
}

func TestJoinSpans(t *testing.T) {
	t.Parallel()
	for range 200 {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 1))
		plain := make(bitmap, 60)
		var spans []span
		for range random.IntN(12) {
			from := Offset(1 + random.IntN(50))
			s := span{From: from, To: from + 1 + Offset(random.IntN(8))}
			spans = append(spans, s)
			plain.add(s)
		}
		joined := joinSpans(spans)
		require.Equal(t, plain.ahead(), append([]span(nil), joined...), "seed %d", seed)
	}
}
