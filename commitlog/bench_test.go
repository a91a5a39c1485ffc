package commitlog_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

// BenchmarkAppend appends frames of one record from one goroutine. Each run
// drops what it wrote as it goes, so that the heap and the dirty limit do not
// decide.
func BenchmarkAppend(b *testing.B) {
	for _, mode := range modes {
		for _, size := range []int{128, 1 << 10} {
			b.Run(fmt.Sprintf("mode=%s/size=%d", mode, size), func(b *testing.B) { benchAppend(b, mode, size) })
		}
	}
}

func benchAppend(b *testing.B, mode string, size int) {
	o := options(b, mode)
	o.SegmentBytes = 64 << 20
	if mode == "mem" {
		o.FS = vfs.NewMem(256 << 20)
		o.SegmentBytes = 32 << 20
	}
	l, _, err := commitlog.Open(o, commitlog.Start{}, func(commitlog.Record) error { return nil })
	require.NoError(b, err)
	defer l.Close()
	ctx, body := context.Background(), make([]byte, size)
	lay := commitlog.Layout{}.Add(testHead + size)
	keep := l.Written()
	fill := func(f *commitlog.Frame) error {
		dst, _, _ := f.Next(testHead, body, commitlog.BodyHash(body))
		clear(dst)
		dst[0] = testHead
		return nil
	}
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for b.Loop() {
		end, err := l.Append(ctx, commitlog.Wait, lay, fill)
		if err != nil {
			b.Fatal(err)
		}
		if end-keep > commitlog.Position(2*o.SegmentBytes) {
			b.StopTimer()
			if err := l.DropBefore(ctx, end); err != nil {
				b.Fatal(err)
			}
			keep = end
			b.StartTimer()
		}
	}
}
