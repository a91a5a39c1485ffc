package keyindex

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/pocketmq/mq/internal/coord"
)

// A file is a header and pages. All numbers are little-endian.
//
//	0           4       6       8          16         24         32         40
//	+-----------+-------+-------+----------+----------+----------+----------+
//	| magic u32 | ver   | zero  | from i64 | to i64   | pairs u64| hash u64 |
//	+-----------+-------+-------+----------+----------+----------+----------+
//
// hash is xxhash64 of the 32 bytes before it. Every page is full but the last,
// which is padded with zeros:
//
//	0                                     4080        4088       4096
//	+----------+--------------+---  ---+-----------+----------+
//	| hash u64 | position i64 |  × 255 | page u64  | hash u64 |
//	+----------+--------------+---  ---+-----------+----------+
//
// page is its number from 0; hash is xxhash64 of the 4,088 bytes before it, XOR
// the hash of the header, so that neither a page of another file nor another
// page of this one is taken for it. Pairs are sorted by hash, and those of one
// hash by position, the highest first.
const (
	headerSize = 40
	pageSize   = 4096
	pairSize   = 16
	pagePairs  = 255

	magic   = 0x58494b50 // "PKIX"
	version = 1

	pageNumberAt = pagePairs * pairSize
	pageHashAt   = pageNumberAt + 8
)

// Flaws of a file, the causes in a CorruptError.
var (
	errMissing = errors.New("missing")
	errSize    = errors.New("size does not fit the number of pairs")
	errMagic   = errors.New("not a key file")
	errVersion = errors.New("unknown format version")
	errHeader  = errors.New("header contradicts itself, its hash or the file's name")
	errPage    = errors.New("page contradicts its hash")
	errOrder   = errors.New("pairs out of order or range")
)

// pair is an entry of the index.
type pair struct {
	hash uint64
	pos  coord.Position
}

// compare orders pairs as they are in a file: by hash, then newest first.
func (p pair) compare(q pair) int {
	if c := cmp.Compare(p.hash, q.hash); c != 0 {
		return c
	}
	return cmp.Compare(q.pos, p.pos)
}

func (p pair) put(dst []byte) {
	_ = dst[pairSize-1]
	binary.LittleEndian.PutUint64(dst, p.hash)
	binary.LittleEndian.PutUint64(dst[8:], uint64(p.pos))
}

func pairAt(src []byte) pair {
	_ = src[pairSize-1]
	return pair{
		hash: binary.LittleEndian.Uint64(src),
		pos:  coord.Position(binary.LittleEndian.Uint64(src[8:])),
	}
}

// header says what a file holds.
type header struct {
	from, to coord.Position
	pairs    int64
}

// pages returns the number of pages.
func (h header) pages() int64 { return (h.pairs + pagePairs - 1) / pagePairs }

// size returns the size of the file.
func (h header) size() int64 { return headerSize + h.pages()*pageSize }

// validate checks what both sides rely on.
func (h header) validate() error {
	if h.from < 0 || h.to <= h.from || h.pairs < 0 || h.pairs > (1<<62)/pageSize {
		return errHeader
	}
	return nil
}

// put encodes the header and returns its hash.
func (h header) put(dst []byte) uint64 {
	dst = dst[:headerSize]
	binary.LittleEndian.PutUint32(dst, magic)
	binary.LittleEndian.PutUint16(dst[4:], version)
	binary.LittleEndian.PutUint16(dst[6:], 0)
	binary.LittleEndian.PutUint64(dst[8:], uint64(h.from))
	binary.LittleEndian.PutUint64(dst[16:], uint64(h.to))
	binary.LittleEndian.PutUint64(dst[24:], uint64(h.pairs))
	sum := xxhash.Sum64(dst[:32])
	binary.LittleEndian.PutUint64(dst[32:], sum)
	return sum
}

// decodeHeader is the inverse of put.
func decodeHeader(src []byte) (h header, sum uint64, err error) {
	if len(src) < headerSize {
		return h, 0, errSize
	}
	if binary.LittleEndian.Uint32(src) != magic {
		return h, 0, errMagic
	}
	if binary.LittleEndian.Uint16(src[4:]) != version {
		return h, 0, errVersion
	}
	sum = xxhash.Sum64(src[:32])
	if binary.LittleEndian.Uint64(src[32:]) != sum || binary.LittleEndian.Uint16(src[6:]) != 0 {
		return h, 0, errHeader
	}
	h = header{
		from:  coord.Position(binary.LittleEndian.Uint64(src[8:])),
		to:    coord.Position(binary.LittleEndian.Uint64(src[16:])),
		pairs: int64(binary.LittleEndian.Uint64(src[24:])),
	}
	return h, sum, h.validate()
}

// putPage encodes up to pagePairs pairs as page number n of the file whose
// header has the hash sum.
func putPage(dst []byte, pairs []pair, n int64, sum uint64) {
	dst = dst[:pageSize]
	for i, p := range pairs {
		p.put(dst[i*pairSize:])
	}
	clear(dst[len(pairs)*pairSize : pageNumberAt])
	binary.LittleEndian.PutUint64(dst[pageNumberAt:], uint64(n))
	binary.LittleEndian.PutUint64(dst[pageHashAt:], xxhash.Sum64(dst[:pageHashAt])^sum)
}

// checkPage verifies a page: that it is whole, and the one that is wanted.
func checkPage(src []byte, n int64, sum uint64) error {
	if len(src) != pageSize ||
		binary.LittleEndian.Uint64(src[pageHashAt:]) != xxhash.Sum64(src[:pageHashAt])^sum ||
		binary.LittleEndian.Uint64(src[pageNumberAt:]) != uint64(n) {
		return errPage
	}
	return nil
}

// name returns the name of the file of a span.
func (s span) name() string { return fmt.Sprintf("%020d-%020d", s.from, s.to) }

// parseName is the inverse of name.
func parseName(name string) (s span, ok bool) {
	if len(name) != 41 || name[20] != '-' {
		return s, false
	}
	from, err1 := strconv.ParseUint(name[:20], 10, 63)
	to, err2 := strconv.ParseUint(name[21:], 10, 63)
	s = span{from: coord.Position(from), to: coord.Position(to)}
	return s, err1 == nil && err2 == nil && from < to
}
