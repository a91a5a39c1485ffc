package commitlog_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

// Test payloads say in their first byte how long their head is.
func headLen(payload []byte) (int, bool) {
	if len(payload) == 0 || int(payload[0]) > len(payload) || payload[0] == 0 {
		return 0, false
	}
	return int(payload[0]), true
}

const testHead = 12

// modes are the three kinds of segments; every test of behaviour runs on each.
var modes = []string{"mapped", "portable", "mem"}

func eachMode(t *testing.T, run func(t *testing.T, o commitlog.Options)) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			run(t, options(t, mode))
		})
	}
}

// options returns small segments in the given mode.
func options(t testing.TB, mode string) commitlog.Options {
	o := commitlog.Options{FS: vfs.OS(), Dir: t.TempDir(), Mmap: true, SegmentBytes: 256 << 10, HeadLen: headLen}
	switch mode {
	case "portable":
		o.Mmap = false
	case "mem":
		o.FS, o.Dir = vfs.NewMem(1<<30), "log"
	}
	return o
}

func open(t testing.TB, o commitlog.Options, s commitlog.Start) (*commitlog.Log, *commitlog.Recovery, []string) {
	t.Helper()
	var bodies []string
	l, rec, err := commitlog.Open(o, s, func(r commitlog.Record) error {
		bodies = append(bodies, bodyOf(r))
		return nil
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l, rec, bodies
}

func bodyOf(r commitlog.Record) string { return string(r.Payload[testHead:]) }

// put appends a frame with one record per body and returns refs to them.
func put(t testing.TB, l *commitlog.Log, bodies ...string) (refs []commitlog.Ref, end commitlog.Position) {
	t.Helper()
	refs, end, err := tryPut(context.Background(), l, commitlog.Wait, bodies...)
	require.NoError(t, err)
	return refs, end
}

func tryPut(ctx context.Context, l *commitlog.Log, room commitlog.Room, bodies ...string) (refs []commitlog.Ref, end commitlog.Position, err error) {
	var lay commitlog.Layout
	for _, b := range bodies {
		lay = lay.Add(testHead + len(b))
	}
	end, err = l.Append(ctx, room, lay, func(f *commitlog.Frame) error {
		for _, b := range bodies {
			dst, at, size := f.Next(testHead, []byte(b), commitlog.BodyHash([]byte(b)))
			clear(dst)
			dst[0] = testHead
			refs = append(refs, commitlog.Ref{Position: at, Size: size})
		}
		return nil
	})
	return refs, end, err
}

// read returns the bodies of refs.
func read(t testing.TB, l *commitlog.Log, refs []commitlog.Ref) []string {
	t.Helper()
	var bodies []string
	l.Read(refs, func(i int, r commitlog.Record, err error) bool {
		require.NoError(t, err, "ref %d: %+v", i, refs[i])
		require.Equal(t, refs[i].Position, r.Position)
		bodies = append(bodies, bodyOf(r))
		return true
	})
	return bodies
}

func scan(t testing.TB, l *commitlog.Log) []string {
	t.Helper()
	var bodies []string
	require.NoError(t, l.Scan(l.Start(), l.Written(), func(r commitlog.Record) error {
		bodies = append(bodies, bodyOf(r))
		return nil
	}))
	return bodies
}

func numbered(n, size int) []string {
	bodies := make([]string, n)
	for i := range bodies {
		bodies[i] = fmt.Sprintf("%0*d", size, i)
	}
	return bodies
}

func segmentName(base commitlog.Position) string { return fmt.Sprintf("%020d", base) }

// What goroutines of the log do in their own time is polled for this long.
const (
	waitTime = 10 * time.Second
	pollTime = time.Millisecond
)
