package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/pocketmq/mq/internal/vfs"
)

// The library writes a folder of files, each named by the index of its first
// entry in 20 digits (the first index is 1), and an entry is
//
//	+----------------+------+
//	| length uvarint | data |
//	+----------------+------+
//
// While it drops the front of the log there is also a file with ".START" behind
// such a name: it takes the place of all files before it. It is written under a
// name with ".TEMP" behind, and renamed.

const (
	startSuffix = ".START"
	tempSuffix  = ".TEMP"
)

// maxFile is the largest file the library writes for us: it begins another one
// with the entry that makes it segmentBytes or more. Of anything larger only as
// much is looked at, so that no file can keep Open busy for long.
const maxFile = segmentBytes + binary.MaxVarintLen64 + maxRecord

// survey is what reading a generation found.
type survey struct {
	files []logFile
	last  *found // newest complete checkpoint, nil if there is none
	next  uint64 // index behind the last entry
	top   uint64 // largest checkpoint number seen

	// odd is the first thing that an undisturbed writer would not have left: a
	// torn tail, chunks without a closing record, a gap. Such a generation is
	// read but never appended to, for what lies behind damage may not be found
	// again. Nil if there was no such thing.
	odd error

	// flaws are all such things, up to maxFlaws, for Examine.
	flaws []Flaw
	dir   string
	now   string // file that is being read
	off   int64  // of the entry in it
	whole int    // how many of flaws lie before the last whole record

	current assembly
}

// logFile is one file of the library's log.
type logFile struct {
	path  string
	index uint64 // of its first entry
}

// found is a complete checkpoint.
type found struct {
	number    uint64
	at        place // of its first chunk
	chunks    uint32
	length    uint64
	bodyHash  uint64
	clean     bool // closed as a clean one, and neither withdrawn nor followed by anything
	withdrawn bool
}

// place is where an entry begins.
type place struct {
	file   int // in survey.files
	offset int64
}

// assembly is a checkpoint whose closing record has not been seen yet.
type assembly struct {
	open   bool
	number uint64
	at     place
	chunks uint32
	length uint64
	hash   hash.Hash64
}

// surveyFolder reads all of a generation, in memory of one record. An error is
// ErrVersion or one of the file system; damage is told in the survey.
func surveyFolder(fsys vfs.FS, dir string) (*survey, error) {
	entries, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	s := &survey{next: 1, dir: dir}
	for _, e := range entries {
		s.addFile(dir, e)
	}
	if len(s.files) > 0 {
		s.next = s.files[0].index
	}
	for i, f := range s.files {
		s.now, s.off = f.path, 0
		if f.index != s.next {
			s.oddity("file %s should begin with entry %d", filepath.Base(f.path), s.next)
		}
		s.next = f.index
		if err := s.readFile(fsys, i); err != nil {
			return nil, err
		}
	}
	if s.current.open {
		s.unfinished(s.current.number)
	}
	if s.last != nil && (s.odd != nil || s.last.withdrawn) {
		s.last.clean = false
	}
	return s, nil
}

// addFile takes one name of the folder into account. Names come sorted.
func (s *survey) addFile(dir string, e vfs.Entry) {
	s.now, s.off = filepath.Join(dir, e.Name), 0
	digits, start := strings.CutSuffix(e.Name, startSuffix)
	index, err := strconv.ParseUint(digits, 10, 64)
	if strings.HasSuffix(e.Name, tempSuffix) && !e.Dir {
		s.leftover("writing %s was interrupted", e.Name)
		return
	}
	if err != nil || len(digits) != 20 || index == 0 || e.Dir {
		s.oddity("%s does not belong here", e.Name)
		return
	}
	if start {
		s.leftover("dropping the front at entry %d was interrupted", index)
		s.files = nil // it takes their place
	}
	if e.Size > maxFile {
		s.oddity("%s has %d bytes", e.Name, e.Size) // the library would read it whole
	}
	s.files = append(s.files, logFile{path: filepath.Join(dir, e.Name), index: index})
}

// readFile reads the entries of one file, up to the first whose length makes no
// sense: what follows in this file cannot be told apart. The next file begins
// with an entry again.
func (s *survey) readFile(fsys vfs.FS, i int) error {
	r, err := openEntries(fsys, s.files[i].path, 0)
	if err != nil {
		return err
	}
	defer r.close()
	for {
		at := place{file: i, offset: r.offset}
		s.off = r.offset
		entry, err := r.next()
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, errTorn) {
			s.oddity("%s at %d: %w", filepath.Base(r.path), at.offset, err)
			return nil
		}
		if err != nil {
			return err
		}
		s.next++
		rec, err := decode(entry)
		if errors.Is(err, ErrVersion) {
			return err
		}
		if err != nil {
			s.oddity("%s at %d: %w", filepath.Base(r.path), at.offset, err)
			continue
		}
		s.add(at, rec)
	}
}

// add takes the next record into account.
func (s *survey) add(at place, r record) {
	s.top = max(s.top, r.number)
	s.whole = len(s.flaws)
	c := &s.current
	switch r.kind {
	case kindChunk:
		if r.seq == 0 {
			if c.open {
				s.unfinished(c.number)
			}
			*c = assembly{open: true, number: r.number, at: at, hash: xxhash.New()}
		}
		if !c.open || r.number != c.number || r.seq != c.chunks {
			s.oddity("chunk %d of checkpoint %d is out of place", r.seq, r.number)
			c.open = false
			return
		}
		c.chunks++
		c.length += uint64(len(r.payload))
		_, _ = c.hash.Write(r.payload)
	case kindClosing:
		whole := c.open && r.number == c.number && r.seq == c.chunks &&
			r.length == c.length && r.bodyHash == c.hash.Sum64()
		c.open = false
		if !whole {
			s.oddity("checkpoint %d is not whole", r.number)
			return
		}
		s.last = &found{number: r.number, at: c.at, chunks: r.seq, length: r.length, bodyHash: r.bodyHash, clean: r.clean}
	case kindWithdrawal:
		if c.open || s.last == nil || s.last.number != r.number {
			s.oddity("withdrawal of checkpoint %d is out of place", r.number)
			return
		}
		s.last.withdrawn = true
	}
}

func (s *survey) oddity(format string, args ...any) { s.note(true, fmt.Errorf(format, args...)) }

// leftover notes what a process that ended at a bad moment leaves.
func (s *survey) leftover(format string, args ...any) { s.note(false, fmt.Errorf(format, args...)) }

func (s *survey) unfinished(number uint64) { s.leftover("checkpoint %d was not completed", number) }

func (s *survey) note(damage bool, err error) {
	if s.odd == nil {
		s.odd = err
	}
	if len(s.flaws) < maxFlaws {
		s.flaws = append(s.flaws, Flaw{File: s.now, Offset: s.off, Err: err, Damage: damage})
	}
}

// body reads the body of the checkpoint that was found. Its length has been
// counted chunk by chunk, so it is no larger than the files.
func (s *survey) body(fsys vfs.FS) ([]byte, error) {
	f := s.last
	if f.length > maxBody {
		return nil, fmt.Errorf("checkpoint %d has %d bytes", f.number, f.length)
	}
	body := make([]byte, 0, f.length)
	seq, offset := uint32(0), f.at.offset
	for i := f.at.file; i < len(s.files) && seq < f.chunks; i++ {
		r, err := openEntries(fsys, s.files[i].path, offset)
		if err != nil {
			return nil, err
		}
		for offset = 0; seq < f.chunks; seq++ {
			var entry []byte
			if entry, err = r.next(); err != nil {
				break
			}
			var rec record
			if rec, err = decode(entry); err != nil {
				break
			}
			body = append(body, rec.payload[:min(len(rec.payload), cap(body)-len(body))]...)
		}
		r.close()
		if err != nil && err != io.EOF {
			return nil, err
		}
	}
	// Read a second time, so checked a second time.
	if uint64(len(body)) != f.length || xxhash.Sum64(body) != f.bodyHash {
		return nil, fmt.Errorf("checkpoint %d changed while it was read", f.number)
	}
	return body, nil
}

// sync makes durable what was read. A process that was killed may have left in
// the cache what the disk does not have; nothing must be built on that.
func (s *survey) sync(fsys vfs.FS, dir string) error {
	for _, lf := range s.files {
		f, err := fsys.Open(lf.path)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return fsys.SyncDir(dir)
}

// errTorn says that an entry is cut short or its length makes no sense.
var errTorn = errors.New("torn entry")

// entryReader reads the entries of one file.
type entryReader struct {
	path   string
	file   vfs.File
	r      *bufio.Reader
	buf    []byte
	offset int64 // of the next entry
	end    int64 // of what is looked at
}

func openEntries(fsys vfs.FS, path string, offset int64) (*entryReader, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	end := min(size, maxFile)
	section := io.NewSectionReader(f, offset, end-offset)
	buffered := int(min(64<<10, max(end-offset, 0)))
	return &entryReader{path: path, file: f, r: bufio.NewReaderSize(section, buffered), offset: offset, end: end}, nil
}

// next returns the next entry, valid until the one after it is read. It returns
// io.EOF at the end of the file, errTorn for damage, and other errors as the
// file system gave them.
func (r *entryReader) next() ([]byte, error) {
	length, width, err := r.length()
	if err != nil {
		return nil, err
	}
	if length < headerSize || length > maxRecord {
		// Zero bytes, which a power cut may leave at the end, would be entries
		// without end.
		return nil, fmt.Errorf("%w: a length of %d", errTorn, length)
	}
	if int64(length) > r.end-r.offset {
		return nil, fmt.Errorf("%w: cut short", errTorn)
	}
	if uint64(cap(r.buf)) < length {
		r.buf = make([]byte, length) // most files have records of one size
	}
	entry := r.buf[:length]
	if _, err := io.ReadFull(r.r, entry); err != nil {
		return nil, tornAtEnd(err)
	}
	r.offset += int64(width) + int64(length)
	return entry, nil
}

// length reads the uvarint before an entry. binary.ReadUvarint does not tell its
// own overflow from an error of the file.
func (r *entryReader) length() (length uint64, width int, err error) {
	for shift := 0; width < binary.MaxVarintLen64; shift += 7 {
		b, err := r.r.ReadByte()
		if err == io.EOF && width == 0 {
			return 0, 0, io.EOF
		}
		if err != nil {
			return 0, 0, tornAtEnd(err)
		}
		width++
		length |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return length, width, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: length without end", errTorn)
}

// tornAtEnd tells a file that ends too early from one that cannot be read.
func tornAtEnd(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: cut short", errTorn)
	}
	return err
}

func (r *entryReader) close() { _ = r.file.Close() }
