package keyindex

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// Examined is a name in the folder of an index, and what is wrong with it.
type Examined struct {
	File     string
	From, To coord.Position
	Size     int64
	Pairs    int64

	Foreign bool  // no file of an index
	Partial bool  // it was never completed
	Offset  int64 // of the flaw
	Err     error // the first flaw, nil if the file is whole
}

// Examine reads every page of every file of the index in dir and changes
// nothing; it holds one page in memory. An error of visit comes back, as does
// one of the file system in listing; a missing folder has no files.
func Examine(fsys vfs.FS, dir string, visit func(Examined) error) error {
	entries, err := fsys.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keyindex: examine %s: %w", dir, err)
	}
	for _, e := range entries {
		name, partial := strings.CutSuffix(e.Name, tmp)
		s, ok := parseName(name)
		x := Examined{File: filepath.Join(dir, e.Name), From: s.from, To: s.to, Size: e.Size, Partial: partial}
		if x.Foreign = !ok || e.Dir; !x.Foreign && !partial {
			x.examine(fsys, s)
		}
		if err := visit(x); err != nil {
			return err
		}
	}
	return nil
}

// examine reads the whole file.
func (x *Examined) examine(fsys vfs.FS, s span) {
	f, err := fsys.Open(x.File)
	if err != nil {
		x.Err = err
		return
	}
	defer func() { _ = f.Close() }() // it was only read
	r := reader{span: s, path: x.File, file: f}
	if x.Err = r.readHeader(); x.Err != nil {
		return
	}
	x.Pairs = r.header.pairs
	last := pair{}
	for n := range r.header.pages() {
		x.Offset = headerSize + n*pageSize
		if x.Err = r.load(n); x.Err != nil {
			return
		}
		for i := range r.len() {
			p := r.at(i)
			if p.pos < s.from || p.pos >= s.to || (n > 0 || i > 0) && last.compare(p) >= 0 {
				x.Offset += int64(i) * pairSize
				x.Err = r.corrupt(errOrder)
				return
			}
			last = p
		}
	}
	x.Offset = 0
}
