package mq

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// TestDamageIsSearchedOnce: a stretch of damage costs its readers one search, not
// one for each message in it.
func TestDamageIsSearchedOnce(t *testing.T) {
	t.Parallel()
	v := makeVictim(t, true)
	for _, whole := range []bool{true, false} {
		mem := v.mem.Clone()
		lost := 0
		if !whole {
			w := wound{file: slices.IndexFunc(v.files, func(f victimFile) bool { return f.log }), kind: "zero", off: 8 * kib, n: 16 * kib}
			data, _ := w.inflict(v.files[w.file].data)
			require.NoError(t, put(mem, v.files[w.file].name, data))
			for i := range v.sent {
				if v.hits(w, v.sent[i].from, v.sent[i].to) {
					lost++
				}
			}
			require.Greater(t, lost, 100)
		}
		b := newBroker(victimOptions(), mem, "store")
		b.journalFS = mem
		require.NoError(t, b.open())
		before := mem.Calls(vfs.OpRead)
		x, err := v.look(t.Context(), b, v.history.Clone())
		require.NoError(t, err)
		require.Len(t, x.lost(), lost)
		require.Less(t, mem.Calls(vfs.OpRead)-before, int64(100+4*lost), "lost: %d", lost)
		_ = b.Close() // it cannot write a checkpoint
	}
}
