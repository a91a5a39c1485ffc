package consumequeue_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
)

func TestEntryLayout(t *testing.T) {
	t.Parallel()
	e := consumequeue.Entry{Position: 0x0807060504030201, Size: 0x0c0b0a09, Tag: 0x14131211100f0e0d}
	raw := make([]byte, consumequeue.EntrySize)
	e.Put(raw)
	require.Equal(t, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, raw)
	require.False(t, e.Hole())
	require.True(t, consumequeue.Entry{Position: 1, Tag: 1}.Hole())
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, consumequeue.EntrySize-1))
	f.Add(bytes.Repeat([]byte{0xff}, consumequeue.EntrySize+1))
	f.Fuzz(func(t *testing.T, src []byte) {
		e, err := consumequeue.DecodeEntry(src)
		if len(src) < consumequeue.EntrySize {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		raw := make([]byte, consumequeue.EntrySize)
		e.Put(raw)
		require.Equal(t, src[:consumequeue.EntrySize], raw)
	})
}
