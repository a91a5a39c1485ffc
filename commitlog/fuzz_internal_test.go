package commitlog

import (
	"bytes"
	"encoding/binary"
	"math"
	"runtime"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// FuzzSegmentHeader: what is accepted is what would be written. Hashes cannot be
// found by mutating bytes, so they are made to agree.
func FuzzSegmentHeader(f *testing.F) {
	b := make([]byte, segmentHeaderSize)
	segmentHeader{epoch: 3, store: 9, base: 8192, capacity: 4096, created: 5, start: 4096}.put(b)
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		if len(b) >= segmentHeaderSize {
			binary.LittleEndian.PutUint64(b[56:], xxhash.Sum64(b[:56]))
		}
		h, err := parseSegmentHeader(b, 8192)
		if err != nil {
			return
		}
		again := make([]byte, segmentHeaderSize)
		h.put(again)
		require.Equal(t, b[:segmentHeaderSize], again)
	})
}

func FuzzControl(f *testing.F) {
	b := make([]byte, controlPayload)
	control{kind: controlEnd, value: 4096, time: 7}.put(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseControl(b)
		if err != nil {
			return
		}
		again := make([]byte, controlPayload)
		c.put(again)
		require.Equal(t, b, again)
	})
}

func FuzzSegmentName(f *testing.F) {
	f.Add("00000000000000008192")
	f.Add("-0000000000000008192")
	f.Fuzz(func(t *testing.T, name string) {
		if base, ok := parseSegmentName(name); ok {
			require.Equal(t, name, segmentName("", base))
		}
	})
}

// FuzzLog reads any bytes as the file of a segment: examining changes nothing,
// salvaging makes a log without gaps, and opening it ends as it should.
func FuzzLog(f *testing.F) {
	frames := make([]byte, segmentHeaderSize)
	segmentHeader{epoch: testEpoch, store: testStore, base: 0, capacity: 1 << 20, created: 5}.put(frames)
	frames = append(frames, encode(segmentHeaderSize, 0, 0, "a", "b")...)
	frames = append(frames, make([]byte, align(int64(len(frames)))-int64(len(frames)))...)
	frames = append(frames, encode(Position(len(frames)), segmentHeaderSize, 0, "c")...)
	f.Add(frames)
	f.Add(frames[:len(frames)-3])
	f.Add(append(bytes.Clone(frames[:70]), frames[66:]...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		mem := vfs.NewMem(64 << 20)
		require.NoError(t, mem.MkdirAll("log"))
		file, err := mem.Create(segmentName("log", 0), int64(len(raw)))
		require.NoError(t, err)
		_, err = file.WriteAt(raw, 0)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		o := Options{FS: vfs.ReadOnly(mem), Dir: "log", HeadLen: testHeadLen, SegmentBytes: 64 << 10}
		found, err := Examine(o, Start{}, &Examiner{})
		if err != nil {
			require.ErrorIs(t, err, ErrVersion)
			return
		}
		fill := func(p []byte) { clear(p); p[0] = 1 }
		out, err := Salvage(o, Start{}, &Examiner{}, Target{FS: mem, Dir: "new", Fill: fill})
		if err == nil {
			require.GreaterOrEqual(t, out.Records, found.Records)
			o.Dir = "new"
			again, err := Examine(o, Start{Synced: out.End}, &Examiner{})
			require.NoError(t, err)
			require.Empty(t, again.Gaps)
			require.GreaterOrEqual(t, again.Records, out.Records)
		}
		o.FS, o.Dir = mem, "log"
		l, _, err := Open(o, Start{}, func(Record) error { return nil })
		require.NoError(t, err)
		require.NoError(t, l.Close())
	})
}

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

// A frame that says it is as large as a frame can be does not make a reader take
// more memory than there are bytes.
func TestHostileLengths(t *testing.T) { //nolint:paralleltest // measures the heap of the process
	raw := make([]byte, segmentHeaderSize, 4096)
	segmentHeader{epoch: testEpoch, store: testStore, base: 0, capacity: 1 << 30, created: 5}.put(raw)
	for len(raw) < 4096 {
		h := make([]byte, headerSize)
		header{size: MaxFrameBytes, epoch: testEpoch}.put(h)
		raw = append(raw, h...)
	}
	mem := vfs.NewMem(0)
	require.NoError(t, mem.MkdirAll("log"))
	file, err := mem.Create(segmentName("log", 0), int64(len(raw)))
	require.NoError(t, err)
	_, err = file.WriteAt(raw, 0)
	require.NoError(t, err)
	o := Options{FS: vfs.ReadOnly(mem), Dir: "log", HeadLen: testHeadLen}
	took := allocated(func() {
		_, err = Examine(o, Start{Synced: Position(len(raw))}, &Examiner{})
	})
	require.NoError(t, err)
	require.Less(t, took, uint64(64<<10))
}
