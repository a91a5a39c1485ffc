package journal

import (
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/pocketmq/mq/internal/vfs"
)

// writing is a checkpoint, or a withdrawal, on its way to disk.
type writing struct {
	fs     vfs.FS
	dir    string // generation
	lib    *library
	number uint64 // of the checkpoint
	first  uint64 // index of its first entry

	entry  []byte // header and payload of the chunk that is being filled; nil before and after
	err    error  // the first one; it must not get lost in a body that ignores it
	seq    uint32
	length uint64
	hash   xxhash.Digest
}

// chunks writes the body and makes it durable: no closing record may be on disk
// before what it closes is.
func (w *writing) chunks(body func(io.Writer) error) error {
	w.hash.Reset()
	w.entry = make([]byte, headerSize, maxRecord)
	err := body(w)
	if err == nil && w.err == nil && (len(w.entry) > headerSize || w.seq == 0) {
		w.err = w.flush() // the rest; an empty body is one empty chunk
	}
	w.entry = nil
	if err == nil {
		err = w.err
	}
	if err != nil {
		return err
	}
	return w.sync()
}

// Write implements io.Writer for the function that writes the body.
func (w *writing) Write(p []byte) (int, error) {
	switch {
	case w.err != nil:
		return 0, w.err
	case w.entry == nil:
		return 0, ErrClosed // kept beyond the body
	case w.length+uint64(len(p)) > maxBody:
		w.err = ErrTooLarge
		return 0, w.err
	}
	w.length += uint64(len(p))
	_, _ = w.hash.Write(p)
	for rest := p; len(rest) > 0; {
		if len(w.entry) == cap(w.entry) {
			if w.err = w.flush(); w.err != nil {
				return 0, w.err
			}
		}
		n := min(len(rest), cap(w.entry)-len(w.entry))
		w.entry = append(w.entry, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

// flush appends the chunk that was filled.
func (w *writing) flush() error {
	r := record{kind: kindChunk, number: w.number, seq: w.seq}
	r.seal(w.entry)
	if err := w.lib.append(w.entry); err != nil {
		return err
	}
	w.seq++
	w.entry = w.entry[:headerSize]
	return nil
}

func (w *writing) closing(clean bool) error {
	r := record{kind: kindClosing, clean: clean, number: w.number, seq: w.seq, length: w.length, bodyHash: w.hash.Sum64()}
	if err := w.lib.append(r.encode()); err != nil {
		return err
	}
	return w.sync()
}

func (w *writing) withdrawal() error {
	r := record{kind: kindWithdrawal, number: w.number}
	if err := w.lib.append(r.encode()); err != nil {
		return err
	}
	return w.sync()
}

// sync makes entries durable, and the names of files that the library began on
// the way, which it does not sync itself.
func (w *writing) sync() error {
	if err := w.lib.sync(); err != nil {
		return err
	}
	return w.fs.SyncDir(w.dir)
}
