package record_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/record"
)

// allocated is how many bytes run takes from the heap.
func allocated(run func()) uint64 {
	least := uint64(math.MaxUint64)
	for range 5 { // others allocate too
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// TestHostileLengths: a record that claims to hold more than it does makes its
// decoder take a small multiple of what there is, whichever number lies.
func TestHostileLengths(t *testing.T) { //nolint:paralleltest // measures the heap of the process
	for _, huge := range []uint64{1 << 10, 1<<16 - 1, 1 << 20, 1 << 32, 1<<48 - 1, 1<<63 - 1} {
		number := binary.AppendUvarint(nil, huge)
		for kind := record.KindMessage; kind <= record.KindHandout+1; kind++ {
			for at := range 8 {
				payload := append([]byte{byte(kind)}, bytes.Repeat([]byte{1}, at)...)
				payload = append(payload, number...)
				payload = append(payload, bytes.Repeat([]byte{1}, 64)...)
				took := allocated(func() {
					if kind == record.KindMessage {
						var v record.View
						_ = record.DecodeMessage(payload, &v)
						return
					}
					_, _ = decodeSmall(payload)
				})
				require.LessOrEqual(t, took, uint64(1024+32*len(payload)), "%v %x", kind, payload)
			}
		}
	}
}
