package keyindex_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/keyindex"
	"github.com/pocketmq/mq/internal/vfs"
)

// An interruption leaves no gap, and a file that is gone stays so: one that came
// back would cover what later files say again.
func TestLimitOrder(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	for pos := coord.Position(0); pos < 50; pos += 10 {
		x.Add(1, pos)
		require.NoError(t, x.Flush(pos+10))
	}
	fsys.Record()
	require.NoError(t, x.Limit(20))
	var steps []string
	for _, c := range fsys.Ops() {
		steps = append(steps, c.Op.String()+" "+filepath.Base(c.Name))
	}
	require.Equal(t, []string{
		"remove " + name(40, 50), "remove " + name(30, 40), "remove " + name(20, 30), "sync folder " + filepath.Base(dir),
	}, steps)
}

// Pages of one file in another order are whole, each of them, and wrong.
func TestSwappedPages(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1 << 20)
	x := open(t, fsys)
	for i := range uint64(3 * 255) {
		x.Add(i, coord.Position(i))
	}
	require.NoError(t, x.Flush(1000))
	f, err := fsys.Open(filepath.Join(dir, name(0, 1000)))
	require.NoError(t, err)
	pages := make([]byte, 2*4096)
	_, err = f.ReadAt(pages, 40)
	require.NoError(t, err)
	_, err = f.WriteAt(slices.Concat(pages[4096:], pages[:4096]), 40)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	err = x.Lookup(1, func(coord.Position) bool { return true })
	require.ErrorIs(t, err, keyindex.ErrCorrupt)
}
