// Package journal keeps checkpoints: what a store knew at some moment, so that
// it need not read its whole log to know it again. They are entries of a
// tidwall/wal log, which is made for this kind of thing, behind checksums and a
// reader of our own.
//
// The journal may lose checkpoints, because all of them can be made again from
// the commit log, but it never returns a wrong byte, never returns half of one,
// and never calls one clean that is not. What a crash leaves behind:
//
//	killed or power cut while …       the next Open finds
//	chunks are written                the checkpoint before
//	the closing record is written     this one or the one before
//	older ones are dropped            this one
//	a clean one is withdrawn          it, clean or not
package journal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/pocketmq/mq/internal/vfs"
)

// maxBody is the largest body, in bytes. A checkpoint names every queue and
// holds at most 16 MiB of index entries, so this is far beyond any store.
const maxBody = 1 << 30

var (
	// ErrClosed is returned by everything that is called after Close.
	ErrClosed = errors.New("journal: closed")

	// ErrVersion is returned by Open for a journal that a newer version wrote.
	// Nothing was changed.
	ErrVersion = errors.New("journal: unknown format version")

	// ErrTooLarge is returned by Write for a body of more than 1 GiB.
	ErrTooLarge = errors.New("journal: checkpoint too large")
)

// Checkpoint is one that was written completely.
type Checkpoint struct {
	Clean bool   // written with clean set, and neither withdrawn nor followed by anything
	Body  []byte // the caller's
}

// Journal is a folder of checkpoints. One process owns it; the lock on the store
// sees to that. Its methods may be called from several goroutines.
type Journal struct {
	fs      vfs.FS
	dir     string
	log     *slog.Logger
	reading bool // the library is left out

	mu        sync.Mutex // protects everything below; held during I/O
	closed    bool
	last      *Checkpoint
	discarded error
	number    uint64 // of the last checkpoint that was begun
	nextGen   uint64

	// kept is the generation that holds the newest complete checkpoint, "" if
	// there is none. lib appends to it; it is nil if the generation must not be
	// appended to, and then the next Write begins another.
	kept       string
	keptNumber uint64 // of that checkpoint
	clean      bool   // it may be found as a clean one
	lib        *library

	// doomed are generations that could not be discarded. Something that was
	// reported as failed may be found in them.
	doomed []string
}

// Open opens the journal in dir, making the folder if it is missing. Damage is
// no error: the newest checkpoint that is whole is found, and what cannot be
// used is discarded. Errors are ErrVersion, and those of a file system that does
// not let it do that. A nil log discards.
func Open(dir string, log *slog.Logger) (*Journal, error) {
	return open(vfs.OS(), dir, log)
}

// OpenIn opens a journal on another file system than the system's, where the
// library cannot write: checkpoints are found and withdrawn, and every Write
// fails. For tests that open a store very often.
func OpenIn(fsys vfs.FS, dir string, log *slog.Logger) (*Journal, error) {
	return openJournal(fsys, dir, log, true)
}

// open lets tests break the file system, for reading: the library writes past it.
func open(fsys vfs.FS, dir string, log *slog.Logger) (*Journal, error) {
	return openJournal(fsys, dir, log, false)
}

func openJournal(fsys vfs.FS, dir string, log *slog.Logger, reading bool) (*Journal, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	j := &Journal{fs: fsys, dir: dir, log: log, nextGen: 1, reading: reading}
	if err := j.load(); err != nil {
		return nil, fmt.Errorf("journal: open %s: %w", dir, err)
	}
	return j, nil
}

// load finds the newest complete checkpoint and discards all generations but
// its own.
func (j *Journal) load() error {
	if err := j.makeFolder(); err != nil {
		return err
	}
	numbers, dead, err := listGenerations(j.fs, j.dir)
	if err != nil {
		return err
	}
	if len(numbers) > 0 {
		j.nextGen = numbers[0] + 1
	}
	var reasons []error
	for _, number := range numbers {
		path := filepath.Join(j.dir, generationName(number))
		if j.last == nil {
			err := j.loadGeneration(path)
			if err == nil {
				continue
			}
			if errors.Is(err, ErrVersion) {
				return err
			}
			reasons = append(reasons, fmt.Errorf("%s: %w", filepath.Base(path), err))
			j.log.Warn("journal: discarding what cannot be used", "dir", path, "err", err)
		}
		// Also those that could not be read just now: if they could next time, a
		// clean mark might come back that nobody withdrew meanwhile.
		if err := discard(j.fs, path); err != nil {
			return err
		}
	}
	if j.last == nil {
		j.discarded = errors.Join(reasons...)
	}
	for _, path := range dead {
		if err := j.fs.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder makes j.dir and its name durable.
func (j *Journal) makeFolder() error {
	if err := j.fs.MkdirAll(j.dir); err != nil {
		return err
	}
	return j.fs.SyncDir(filepath.Dir(filepath.Clean(j.dir)))
}

// loadGeneration takes the newest checkpoint from a generation, and opens it for
// appending if nothing is odd about it. An error says why there is no using it.
func (j *Journal) loadGeneration(path string) error {
	s, err := surveyFolder(j.fs, path)
	if err != nil {
		return err
	}
	j.number = max(j.number, s.top)
	if s.last == nil {
		return errors.Join(errors.New("no complete checkpoint"), s.odd)
	}
	body, err := s.body(j.fs)
	if err != nil {
		return err
	}
	if err := s.sync(j.fs, path); err != nil {
		return err
	}
	j.last = &Checkpoint{Clean: s.last.clean, Body: body}
	j.kept, j.keptNumber, j.clean = path, s.last.number, s.last.clean
	if s.odd != nil {
		j.log.Warn("journal: the next checkpoint begins another generation", "dir", path, "err", s.odd)
		return nil
	}
	if j.reading {
		return nil
	}
	if j.lib, err = openLibrary(path, s.next); err != nil {
		j.log.Warn("journal: the next checkpoint begins another generation", "dir", path, "err", err)
	}
	return nil
}

// Last returns the newest complete checkpoint that Open found, nil if there was
// none. Only Withdraw, Forget and Discard change it.
func (j *Journal) Last() *Checkpoint {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// Forget lets go of what Last returns, and of the memory of its body.
func (j *Journal) Forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last = nil
}

// Discard makes sure, durably, that no Open finds the checkpoint again: for a
// store that is about to remove what it names.
func (j *Journal) Discard() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	j.last = nil
	if err := j.dropLocked(); err != nil {
		return fmt.Errorf("journal: discard: %w", err)
	}
	return nil
}

// Discarded says why Open found no checkpoint, though there was something; nil
// if it found one, or if the journal was new.
func (j *Journal) Discarded() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.discarded
}

// Write writes a checkpoint. body writes its bytes; the writer is useless once it
// returns, and it must not call the journal. When Write returns nil the checkpoint
// is durable, and older ones are gone or will be.
//
// After an error the checkpoint before may still be there or not, but never a
// part of this one, and the next Write begins in a fresh folder. Everything the
// checkpoint refers to must be durable before body returns, for then the closing
// record is written.
func (j *Journal) Write(body func(w io.Writer) error, clean bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	gen, lib := j.kept, j.lib
	if lib == nil {
		var err error
		if gen, lib, err = j.newGeneration(); err != nil {
			return fmt.Errorf("journal: begin another generation: %w", err)
		}
	}
	j.number++
	w := writing{fs: j.fs, dir: gen, lib: lib, number: j.number, first: lib.next}

	// From here on the generation may have entries that are part of nothing. If
	// body panics it is left alone in the same way as if it failed.
	chunksDone := false
	defer func() {
		if !chunksDone {
			j.abandonLocked(gen, lib)
		}
	}()
	if err := w.chunks(body); err != nil {
		return fmt.Errorf("journal: write checkpoint: %w", err)
	}
	chunksDone = true
	if err := w.closing(clean); err != nil {
		j.revokeLocked(gen, lib)
		return fmt.Errorf("journal: complete checkpoint: %w", err)
	}
	j.adoptLocked(gen, &w, clean)
	return nil
}

// newGeneration makes the next generation, with all names durable up to the
// store's folder but for its first file, which is synced with the chunks.
func (j *Journal) newGeneration() (path string, lib *library, err error) {
	if j.reading {
		return "", nil, errors.ErrUnsupported
	}
	if err := j.makeFolder(); err != nil {
		return "", nil, err
	}
	path = filepath.Join(j.dir, generationName(j.nextGen))
	j.nextGen++
	if err := j.fs.MkdirAll(path); err != nil {
		return "", nil, err
	}
	if lib, err = openLibrary(path, 1); err == nil {
		err = j.fs.SyncDir(j.dir)
	}
	if err != nil {
		j.abandonLocked(path, lib)
		return "", nil, err
	}
	return path, lib, nil
}

// abandonLocked stops appending to a generation in which a checkpoint was begun
// and not completed. What it had before stays valid.
func (j *Journal) abandonLocked(gen string, lib *library) {
	if lib != nil {
		_ = lib.close() // what it could not sync belongs to nothing
	}
	j.lib = nil
	if gen != j.kept {
		_ = j.discardLocked(gen)
	}
}

// revokeLocked makes sure that a checkpoint is not found later whose closing
// record may or may not be on disk. That costs the one before, if it is in the
// same generation: a file that failed to sync cannot be trusted, or mended.
func (j *Journal) revokeLocked(gen string, lib *library) {
	_ = lib.close()
	j.lib = nil
	if gen == j.kept {
		j.kept, j.clean = "", false
	}
	_ = j.discardLocked(gen)
}

// adoptLocked makes a generation with a new checkpoint the one that is kept, and
// drops what is older. The checkpoint is durable, so a failure here is only
// reported: older ones take up space until the next Write or Open.
func (j *Journal) adoptLocked(gen string, w *writing, clean bool) {
	old := j.kept
	j.kept, j.keptNumber, j.clean, j.lib = gen, w.number, clean, w.lib
	if old == gen {
		err := w.lib.dropBefore(w.first)
		if err == nil {
			err = j.fs.SyncDir(gen)
		}
		if err != nil {
			j.log.Warn("journal: drop older checkpoints", "dir", gen, "err", err)
			_ = w.lib.close()
			j.lib = nil
		}
	} else if old != "" {
		j.doomed = append(j.doomed, old)
	}
	_ = j.discardDoomedLocked()
}

// discardLocked discards a generation, now or later.
func (j *Journal) discardLocked(gen string) error {
	j.doomed = append(j.doomed, gen)
	return j.discardDoomedLocked()
}

// discardDoomedLocked tries again what did not work before.
func (j *Journal) discardDoomedLocked() error {
	for len(j.doomed) > 0 {
		if err := discard(j.fs, j.doomed[0]); err != nil {
			j.log.Warn("journal: discard", "dir", j.doomed[0], "err", err)
			return err
		}
		j.doomed = j.doomed[1:]
	}
	return nil
}

// Withdraw makes sure, durably, that no Open from now on finds a clean
// checkpoint, until one is written again. A store calls it before its first
// change. It does nothing if there is no clean mark.
func (j *Journal) Withdraw() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	if err := j.withdrawLocked(); err != nil {
		return fmt.Errorf("journal: withdraw clean mark: %w", err)
	}
	j.clean = false
	if j.last != nil && j.last.Clean {
		// A copy: what Last returned before is the caller's.
		j.last = &Checkpoint{Body: j.last.Body}
	}
	return nil
}

// withdrawLocked appends a withdrawal, or discards the checkpoint where that
// does not work.
func (j *Journal) withdrawLocked() error {
	if err := j.discardDoomedLocked(); err != nil {
		return err // a clean mark may be in there
	}
	if !j.clean {
		return nil
	}
	if j.lib != nil {
		w := writing{fs: j.fs, dir: j.kept, lib: j.lib, number: j.keptNumber}
		err := w.withdrawal()
		if err == nil {
			return nil
		}
		j.log.Warn("journal: withdraw clean mark: discarding the checkpoint", "dir", j.kept, "err", err)
	}
	return j.dropLocked()
}

// dropLocked discards the generation that is kept. The next Write begins another.
func (j *Journal) dropLocked() error {
	if j.lib != nil {
		_ = j.lib.close()
		j.lib = nil
	}
	if j.kept != "" {
		j.doomed = append(j.doomed, j.kept)
		j.kept, j.clean = "", false
	}
	return j.discardDoomedLocked()
}

// Close closes the journal. It is idempotent.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	j.last = nil
	if j.lib == nil {
		return nil
	}
	err := j.lib.close()
	j.lib = nil
	if err != nil {
		return fmt.Errorf("journal: close: %w", err)
	}
	return nil
}
