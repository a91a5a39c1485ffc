package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// A segment begins with 64 bytes, little-endian:
//
//	 0       8             12          16         24     32         40
//	+-------+-------------+-----------+----------+------+----------+
//	| magic | version u32 | epoch u32 | store id | base | capacity |
//	+-------+-------------+-----------+----------+------+----------+
//	 40                 48          56                  64
//	+------------------+-----------+-------------------+
//	| created, Unix ms | log start | hash of the above |
//	+------------------+-----------+-------------------+
//
// Magic, version and hash keep their places in every version to come, so that a
// later one can be told from damage.
const (
	segmentHeaderSize = 64
	segmentMagic      = 0x676f4c514d6b6350 // "PckMQLog" in the file
	segmentVersion    = 1

	// maxSegmentBytes and maxPosition bound what is read from disk, so that
	// positions cannot overflow.
	maxSegmentBytes = 1 << 40
	maxPosition     = 1 << 61

	// nameDigits is the length of a segment's name, which is RocketMQ's form
	// (MappedFileQueue, UtilAll.offset2FileName).
	nameDigits = 20
)

// errSegmentHeader says that a file does not begin like a segment.
var errSegmentHeader = errors.New("segment header is damaged")

// segmentHeader is what a segment says of itself.
type segmentHeader struct {
	epoch    uint32
	store    uint64
	base     Position
	capacity int64
	created  int64    // Unix ms
	start    Position // of the log, when the segment was made
}

// put encodes h into the first bytes of b.
func (h segmentHeader) put(b []byte) {
	_ = b[segmentHeaderSize-1]
	le := binary.LittleEndian
	le.PutUint64(b, segmentMagic)
	le.PutUint32(b[8:], segmentVersion)
	le.PutUint32(b[12:], h.epoch)
	le.PutUint64(b[16:], h.store)
	le.PutUint64(b[24:], uint64(h.base))
	le.PutUint64(b[32:], uint64(h.capacity))
	le.PutUint64(b[40:], uint64(h.created))
	le.PutUint64(b[48:], uint64(h.start))
	le.PutUint64(b[56:], xxhash.Sum64(b[:56]))
}

// parseSegmentHeader decodes and validates the header of the segment that is
// named by base. Only an undamaged header of another version is ErrVersion.
func parseSegmentHeader(b []byte, base Position) (segmentHeader, error) {
	le := binary.LittleEndian
	if len(b) < segmentHeaderSize || le.Uint64(b) != segmentMagic || le.Uint64(b[56:]) != xxhash.Sum64(b[:56]) {
		return segmentHeader{}, errSegmentHeader
	}
	if v := le.Uint32(b[8:]); v != segmentVersion {
		return segmentHeader{}, fmt.Errorf("%w %d", ErrVersion, v)
	}
	h := segmentHeader{
		epoch: le.Uint32(b[12:]), store: le.Uint64(b[16:]),
		base: Position(le.Uint64(b[24:])), capacity: int64(le.Uint64(b[32:])),
		created: int64(le.Uint64(b[40:])), start: Position(le.Uint64(b[48:])),
	}
	if h.base != base || h.capacity <= 0 || h.capacity%pageBytes != 0 || h.capacity > maxSegmentBytes ||
		h.start < 0 || h.start > h.base {
		return segmentHeader{}, errSegmentHeader
	}
	return h, nil
}

// segmentName returns the path of the segment with that base.
func segmentName(dir string, base Position) string {
	return filepath.Join(dir, fmt.Sprintf("%0*d", nameDigits, int64(base)))
}

// parseSegmentName returns the base that a file name stands for.
func parseSegmentName(name string) (Position, bool) {
	if len(name) != nameDigits {
		return 0, false
	}
	for _, c := range name {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(name, 10, 64)
	if err != nil || n%pageBytes != 0 || n > maxPosition {
		return 0, false
	}
	return Position(n), true
}
