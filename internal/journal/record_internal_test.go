package journal

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

func records() []record {
	return []record{
		{kind: kindChunk, number: 7, seq: 3, payload: []byte("body")},
		{kind: kindChunk, number: 1<<64 - 1, payload: []byte{}},
		{kind: kindClosing, clean: true, number: 8, seq: 4, length: 1 << 40, bodyHash: 99},
		{kind: kindClosing, number: 8, seq: 1},
		{kind: kindWithdrawal, number: 9},
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	for _, want := range records() {
		entry := want.encode()
		got, err := decode(entry)
		require.NoError(t, err)
		require.Equal(t, want, got)
		for i := range entry {
			for bit := range 8 {
				bad := bytes.Clone(entry)
				bad[i] ^= 1 << bit
				_, err := decode(bad)
				require.ErrorIs(t, err, errRecord)
			}
			_, err := decode(entry[:i])
			require.ErrorIs(t, err, errRecord)
		}
		_, err = decode(append(entry, 0))
		require.ErrorIs(t, err, errRecord)
	}
}

// TestRecordRefuses has rows whose checksum holds: written by somebody else.
func TestRecordRefuses(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		of      record
		corrupt func(b []byte) []byte
		want    string
	}{
		"magic":                   {records()[0], func(b []byte) []byte { b[0]++; return b }, "magic"},
		"kind":                    {records()[0], func(b []byte) []byte { b[5] = 4; return b }, "kind 4"},
		"chunk with flags":        {records()[0], func(b []byte) []byte { b[6] = 1; return b }, "flags"},
		"closing, unknown flags":  {records()[2], func(b []byte) []byte { b[7] = 1; return b }, "flags"},
		"size":                    {records()[0], func(b []byte) []byte { b[20]++; return b }, "length"},
		"trailing":                {records()[0], func(b []byte) []byte { return append(b, 0) }, "length"},
		"closing, short":          {records()[2], func(b []byte) []byte { b[20]--; return b[:len(b)-1] }, "15 bytes"},
		"withdrawal with payload": {records()[4], func(b []byte) []byte { b[20]++; return append(b, 0) }, "1 bytes"},
		"withdrawal with seq":     {records()[4], func(b []byte) []byte { b[16]++; return b }, "kind 3"},
		"too long":                {records()[0], func(b []byte) []byte { return append(b, make([]byte, maxChunk)...) }, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entry := row.corrupt(row.of.encode())
			binary.LittleEndian.PutUint64(entry[hashOffset:], recordHash(entry))
			_, err := decode(entry)
			require.ErrorIs(t, err, errRecord)
			require.ErrorContains(t, err, row.want)
		})
	}
}

// TestVersion has a record of the next version in an otherwise good journal.
func TestVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	gen := twoCheckpoints(t, dir, []byte("a"), []byte("b"))
	path := filepath.Join(gen, "00000000000000000001")
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	entry := records()[0].encode()
	entry[4]++
	_, err = decode(entry)
	require.ErrorIs(t, err, errRecord, "damaged, not newer")
	binary.LittleEndian.PutUint64(entry[hashOffset:], recordHash(entry))
	file = append(binary.AppendUvarint(file, uint64(len(entry))), entry...)
	require.NoError(t, os.WriteFile(path, file, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, generationName(7)+deadSuffix), 0o700))

	for range 2 {
		_, err = Open(dir, nil)
		require.ErrorIs(t, err, ErrVersion)
		require.Equal(t, file, readOnly(t, gen))
		require.DirExists(t, filepath.Join(dir, generationName(7)+deadSuffix))
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range records() {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		r, err := decode(entry)
		if err != nil && len(entry) >= headerSize {
			// Few inputs have a checksum that holds; give all others one.
			entry = bytes.Clone(entry)
			binary.LittleEndian.PutUint64(entry[hashOffset:], recordHash(entry))
			r, err = decode(entry)
		}
		if err == nil {
			require.Equal(t, entry, r.encode())
		}
	})
}

// FuzzSurvey reads any bytes as a file of the library.
func FuzzSurvey(f *testing.F) {
	whole := readOnly(f, twoCheckpoints(f, f.TempDir(), pattern(1, 20), pattern(2, 300)))
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole), 0, 0, 0))
	f.Add([]byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, file []byte) {
		s, mem := surveyBytes(t, file)
		if s.last == nil {
			return
		}
		body, err := s.body(mem)
		if err == nil {
			require.Len(t, body, int(s.last.length))
		}
	})
}

// TestHostileLengths: an entry that claims to be as large as one can be does not
// make its reader take more memory than the file has bytes, but for a buffer.
func TestHostileLengths(t *testing.T) { //nolint:paralleltest // measures the heap of the process
	file := binary.AppendUvarint(nil, maxRecord)
	file = append(file, make([]byte, 100)...)
	least := uint64(math.MaxUint64)
	for range 5 { // others allocate too
		mem := vfs.NewMem(0)
		require.NoError(t, mem.MkdirAll("gen"))
		f, err := mem.Create("gen/00000000000000000001", int64(len(file)))
		require.NoError(t, err)
		_, err = f.WriteAt(file, 0)
		require.NoError(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s, err := surveyFolder(mem, "gen")
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		require.ErrorIs(t, s.odd, errTorn)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	require.Less(t, least, uint64(16<<10))
}
