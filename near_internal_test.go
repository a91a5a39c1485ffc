package mq

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
)

// TestNearShrinksWhileLoading: more is sent than is kept while the index is being
// read. Everything is delivered once, in order: what lies behind the nearer
// horizon is read again, and so must not be near.
func TestNearShrinksWhileLoading(t *testing.T) {
	t.Parallel()
	var n near
	n.begin(record.Due{})
	var index []record.Due
	for i := range 100 {
		index = append(index, record.Due{At: int64(1000 * (i + 1)), Position: coord.Position(i + 1)})
	}
	indexed := len(index)
	require.Zero(t, n.loading())
	for i := range maxNear + 1 {
		d := record.Due{At: int64(i + 1), Position: coord.Position(1000 + i)}
		index = append(index, d)
		n.add(d)
	}
	n.take(slices.Clone(index[:indexed]), endOfTime)

	slices.SortFunc(index, record.Due.Compare)
	var delivered []record.Due
	for n.horizon != endOfTime || n.len() > 0 {
		n.launch(math.MaxInt64, launchMost)
		delivered = append(delivered, n.flight...)
		n.landed(len(n.flight))
		if n.len() == 0 && n.horizon != endOfTime {
			from := n.loading()
			at, _ := slices.BinarySearchFunc(index, record.Due{At: from.At, Position: from.Position + 1}, record.Due.Compare)
			n.take(slices.Clone(index[at:]), endOfTime)
		}
	}
	require.Equal(t, len(index), len(delivered))
	require.True(t, slices.Equal(index, delivered))
}
