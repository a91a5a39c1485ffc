package commitlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	testStore = 0x0123456789abcdef
	testPos   = Position(4096 + 64)
	testEpoch = 7
)

// testHeadLen: the first byte of a test payload is the length of its head.
func testHeadLen(p []byte) (int, bool) {
	if len(p) == 0 || p[0] == 0 || int(p[0]) > len(p) {
		return 0, false
	}
	return int(p[0]), true
}

var testCodec = codec{store: testStore, headLen: testHeadLen}

// encode puts together a frame as Append does.
func encode(pos, synced Position, flags uint8, bodies ...string) []byte {
	var lay Layout
	for _, b := range bodies {
		lay = lay.Add(3 + len(b))
	}
	f := Frame{log: &Log{epoch: testEpoch, codec: testCodec}}
	buf := bytes.Repeat([]byte{0xff}, int(lay.Size())) // what was there must not matter
	f.begin(buf, pos, synced, flags, len(bodies) > 1)
	for _, b := range bodies {
		dst, _, _ := f.Next(3, []byte(b), BodyHash([]byte(b)))
		copy(dst, []byte{3, 'h', 'd'})
	}
	if err := f.finish(); err != nil {
		panic(err)
	}
	return buf[:f.used]
}

func check(b []byte, pos Position) (header, error) {
	h, err := parseHeader(b)
	if err != nil {
		return h, err
	}
	return h, testCodec.checkFrame(h, b, pos, testEpoch)
}

func TestFrameRoundTrip(t *testing.T) {
	t.Parallel()
	for _, bodies := range [][]string{{""}, {"a"}, {"body of it"}, {"", ""}, {"one", "two longer", ""}, {string(make([]byte, 700))}} {
		b := encode(testPos, 64, 0, bodies...)
		require.Zero(t, len(b)%frameAlign)
		h, err := check(b, testPos)
		require.NoError(t, err)
		mark, ok := h.mark(testPos)
		assert.True(t, ok)
		assert.Equal(t, Position(64), mark)
		var got []string
		require.NoError(t, eachRecord(h, b, testPos, func(r Record) error {
			got = append(got, string(r.Payload[3:]))
			assert.Equal(t, testPos+Position(len(b)), r.End)
			// Every record can be verified alone, by position and size.
			at := int(r.Position - testPos)
			rh, err := parseHeader(b[at:])
			require.NoError(t, err)
			assert.NoError(t, testCodec.checkRecord(rh, b[at:at+int(r.Size)], r.Position))
			return nil
		}))
		assert.Equal(t, bodies, got)
	}
}

// One row per way in which a frame can be none.
func TestFrameDamage(t *testing.T) {
	t.Parallel()
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0x10; return b }
	}
	rows := []struct {
		name    string
		bodies  []string
		pos     Position // where it is read; 0: where it was written
		corrupt func([]byte) []byte
		want    error
	}{
		{"cut in the header", []string{"a"}, 0, func(b []byte) []byte { return b[:20] }, errShort},
		{"cut in the body", []string{"abcdefghijklm"}, 0, func(b []byte) []byte { return b[:32] }, errShort},
		{"zeros", []string{"a"}, 0, func(b []byte) []byte { clear(b); return b }, errHeader},
		{"magic", []string{"a"}, 0, flip(0), errHeader},
		{"version", []string{"a"}, 0, flip(2), errHeader},
		{"unknown flag", []string{"a"}, 0, flip(3), errHeader},
		{"size too small", []string{"a"}, 0, func(b []byte) []byte { binary.LittleEndian.PutUint32(b[4:], 23); return b }, errHeader},
		{"size too large", []string{"a"}, 0, func(b []byte) []byte { binary.LittleEndian.PutUint32(b[4:], MaxFrameBytes+1); return b }, errHeader},
		{"size", []string{"abc"}, 0, func(b []byte) []byte { b[4]--; return b }, errHash},
		{"epoch forward", []string{"a"}, 0, func(b []byte) []byte { b[8]++; return b }, errHash},
		{"epoch back", []string{"a"}, 0, func(b []byte) []byte {
			b[8]-- // and sealed: a frame that was valid once
			seal(b[:headerSize+4], headerSize+3, BodyHash([]byte("a")), testPos, testStore)
			return b
		}, errEpoch},
		{"mark", []string{"a"}, 0, flip(12), errHash},
		{"hash", []string{"a"}, 0, flip(16), errHash},
		{"head", []string{"a"}, 0, flip(25), errHash},
		{"head length", []string{"a"}, 0, func(b []byte) []byte { b[24] = 200; return b }, errHead},
		{"head length moved", []string{"abc"}, 0, func(b []byte) []byte { b[24] = 4; return b }, errHash},
		{"body", []string{"abc"}, 0, flip(28), errHash},
		{"another position", []string{"a"}, testPos + 8, func(b []byte) []byte { return b }, errHash},
		{"batch header", []string{"a", "b"}, 0, flip(17), errHash},
		{"batch at another position", []string{"a", "b"}, testPos + 8, func(b []byte) []byte { return b }, errHash},
		{"record of a batch", []string{"a", "b"}, 0, flip(24 + 25), errHash},
		{"record of a batch is no header", []string{"a", "b"}, 0, flip(24), errBatch},
		{"batch starts no frame inside", []string{"a", "b"}, testPos + 24, func(b []byte) []byte { return b[24:] }, errNotStart},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			pos := row.pos
			if pos == 0 {
				pos = testPos
			}
			_, err := check(row.corrupt(encode(testPos, 64, 0, row.bodies...)), pos)
			assert.ErrorIs(t, err, row.want)
		})
	}
}

func TestFrameOfAnotherStore(t *testing.T) {
	t.Parallel()
	b := encode(testPos, 64, 0, "somebody's body")
	h, err := parseHeader(b)
	require.NoError(t, err)
	other := codec{store: testStore + 1, headLen: testHeadLen}
	assert.ErrorIs(t, other.checkFrame(h, b, testPos, 0), errHash)
}

// A batch whose header was sealed over another number of bytes adds up to none.
func TestBatchMustAddUp(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]uint32{"no record": headerSize, "half a record": headerSize + 12, "cut before the last": 24 + 28} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := encode(testPos, 64, 0, "a", "b")
			header{flags: flagBatch, size: size, epoch: testEpoch}.put(b)
			seal(b, headerSize, 0, testPos, testStore)
			_, err := check(b, testPos)
			if name == "cut before the last" {
				assert.NoError(t, err, "a whole record is a batch of one")
				return
			}
			assert.ErrorIs(t, err, errBatch)
		})
	}
}

func TestMarkFarBehindIsUnknown(t *testing.T) {
	t.Parallel()
	far := Position(behindUnknown) * frameAlign
	assert.Equal(t, uint32(behindUnknown), behindOf(far, 0))
	_, ok := header{behind: behindUnknown}.mark(far)
	assert.False(t, ok)
	_, ok = header{behind: 3}.mark(8)
	assert.False(t, ok, "before the beginning")
}

func TestControlRefuses(t *testing.T) {
	t.Parallel()
	b := make([]byte, controlPayload)
	control{kind: controlEnd, value: 4096, time: 5}.put(b)
	c, err := parseControl(b)
	require.NoError(t, err)
	assert.Equal(t, control{kind: controlEnd, value: 4096, time: 5}, c)
	for name, corrupt := range map[string]func(){
		"kind 0":       func() { b[0] = 0 },
		"kind unknown": func() { b[0] = 9 },
		"value":        func() { b[0] = 1; b[15] = 0x80 },
	} {
		corrupt()
		_, err := parseControl(b)
		assert.ErrorIs(t, err, errControl, name)
	}
	_, err = parseControl(b[:10])
	assert.ErrorIs(t, err, errControl)
}

func TestSegmentHeader(t *testing.T) {
	t.Parallel()
	h := segmentHeader{epoch: 3, store: testStore, base: 8192, capacity: 1 << 20, created: 99, start: 4096}
	good := func() []byte { b := make([]byte, segmentHeaderSize); h.put(b); return b }
	got, err := parseSegmentHeader(good(), 8192)
	require.NoError(t, err)
	assert.Equal(t, h, got)
	for at := range segmentHeaderSize {
		b := good()
		b[at] ^= 1
		_, err := parseSegmentHeader(b, 8192)
		assert.ErrorIs(t, err, errSegmentHeader, "byte %d", at)
		assert.NotErrorIs(t, err, ErrVersion, "a flipped bit is no other version")
	}
	_, err = parseSegmentHeader(good(), 4096)
	assert.ErrorIs(t, err, errSegmentHeader, "under another name")
	_, err = parseSegmentHeader(good()[:63], 8192)
	assert.ErrorIs(t, err, errSegmentHeader)
}

func TestSegmentNames(t *testing.T) {
	t.Parallel()
	base, ok := parseSegmentName("00000000000000008192")
	assert.True(t, ok)
	assert.Equal(t, Position(8192), base)
	for _, name := range []string{"", "8192", "0000000000000000819x", "00000000000000008193", "-0000000000000008192", "99999999999999999999"} {
		_, ok := parseSegmentName(name)
		assert.False(t, ok, name)
	}
}

// Whatever bytes are read as a frame, nothing panics, and what is accepted is
// what would be written.
func FuzzFrame(f *testing.F) {
	f.Add(encode(testPos, 64, 0, "a"))
	f.Add(encode(testPos, 64, 0, "a", "", "c"))
	f.Add(encode(testPos, 64, 0, string(make([]byte, 600))))
	f.Add([]byte("PM\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := check(b, testPos)
		if err != nil {
			return
		}
		again := bytes.Clone(b[:h.size])
		h.put(again)
		var bodies int
		err = eachRecord(h, b, testPos, func(r Record) error { bodies++; return nil })
		if err != nil || bodies == 0 {
			t.Fatalf("a valid frame has %d records: %v", bodies, err)
		}
		if !bytes.Equal(again, b[:h.size]) {
			t.Fatal("header encodes to other bytes")
		}
		// Its hash is bound to where it is.
		if _, err := check(b, testPos+8); err == nil && !errors.Is(err, errHash) {
			t.Fatal("valid somewhere else too")
		}
	})
}

// Hashes cannot be found by mutating bytes, so this one repairs them.
func FuzzSealedFrame(f *testing.F) {
	f.Add(uint8(0), []byte{3, 'h', 'd', 'b'})
	f.Add(uint8(flagBatch), encode(testPos, 64, 0, "a", "b")[headerSize:])
	f.Add(uint8(flagControl), make([]byte, controlPayload))
	f.Fuzz(func(t *testing.T, flags uint8, payload []byte) {
		b := make([]byte, align(headerSize+int64(len(payload))))
		header{flags: flags, size: uint32(headerSize + len(payload)), epoch: testEpoch}.put(b)
		copy(b[headerSize:], payload)
		switch n, ok := testHeadLen(payload); {
		case flags == flagBatch:
			seal(b, headerSize, 0, testPos, testStore)
		case flags == flagControl:
			seal(b, headerSize+len(payload), emptyBody, testPos, testStore)
		case ok:
			seal(b, headerSize+n, BodyHash(payload[n:]), testPos, testStore)
		}
		h, err := check(b, testPos)
		if err != nil {
			return
		}
		if flags == flagControl {
			_, _ = parseControl(b[headerSize:h.size])
			return
		}
		end := testPos
		err = eachRecord(h, b, testPos, func(r Record) error {
			if r.Position < end || r.Position+Position(len(r.Payload)) > testPos+Position(len(b)) {
				t.Fatalf("record at %d of %d bytes", r.Position, r.Size)
			}
			end = r.Position + Position(r.Size)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
