package mq

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/pocketmq/mq/internal/crashfs"
	"github.com/pocketmq/mq/internal/vfs"
)

// powerJournal is the folder of the journal, which lies on a real disk, and what
// of it is known to be synced: as it was when the last checkpoint, or opening,
// was done.
type powerJournal struct {
	dir string

	mu    sync.Mutex
	files map[string][]byte // by name below dir; nil: there was no folder
	seen  int64             // checkpoints of the broker when they were copied
}

// mirror has the file system know of the folder: the broker asks it whether
// there was a journal.
func (j *powerJournal) mirror(f *crashfs.FS) {
	if _, err := os.Stat(j.dir); err == nil {
		_ = f.MkdirAll(j.dir) // the power may go
	} else {
		_ = f.RemoveAll(j.dir)
	}
}

// watch copies the folder as soon as a checkpoint is done: before the broker
// does anything to its files that relies on it.
func (j *powerJournal) watch(f *crashfs.FS, b *Broker) {
	j.mu.Lock()
	j.seen = 0
	j.mu.Unlock()
	f.Before(func(vfs.Call) error {
		j.mu.Lock()
		defer j.mu.Unlock()
		if n := b.upkeep.checkpoints.Load(); n != j.seen && !f.Off() {
			j.seen = n
			j.files = readFiles(j.dir)
		}
		return nil
	})
}

// keep notes that the folder is synced as it is.
func (j *powerJournal) keep() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.files = readFiles(j.dir)
}

// cut forgets what a power cut may forget: everything since the last sync, or
// parts of it. Now and then the whole folder goes, for the log alone is enough.
func (j *powerJournal) cut(rnd *rand.Rand, trace *powerTrace) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := readFiles(j.dir)
	left, how := now, "as it is"
	switch rnd.IntN(8) {
	case 0:
		left, how = nil, "gone"
	case 1, 2:
		left, how = j.files, "as of the last checkpoint"
	case 3, 4, 5:
		left, how = torn(now, j.files, rnd), "torn"
	}
	trace.note("journal: %s", how)
	writeFiles(j.dir, left)
	j.files = left
}

// torn damages what the files have beyond what was synced: cut off, zeros or
// noise. Files that were not synced may be missing, and removed ones be back.
func torn(now, synced map[string][]byte, rnd *rand.Rand) map[string][]byte {
	if now == nil {
		return nil
	}
	left := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		b, old := now[name], synced[name]
		if old == nil && rnd.IntN(3) == 0 {
			continue
		}
		firm := commonPrefix(b, old)
		b = bytes.Clone(b)
		at := firm + rnd.IntN(len(b)-firm+1)
		switch rnd.IntN(4) {
		case 0:
			b = b[:at]
		case 1:
			clear(b[at:])
		case 2:
			b = append(b[:at], noise(rnd, min(512, len(b)-at))...)
		}
		left[name] = b
	}
	for _, name := range slices.Sorted(maps.Keys(synced)) {
		if _, ok := now[name]; !ok && rnd.IntN(2) == 0 {
			left[name] = synced[name]
		}
	}
	return left
}

func commonPrefix(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func noise(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// readFiles returns the files below dir, nil if it is not there.
func readFiles(dir string) map[string][]byte {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[rel], err = os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // gone meanwhile
			delete(files, rel)
			return nil
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) && len(files) == 0 {
		return nil
	}
	return files
}

func writeFiles(dir string, files map[string][]byte) {
	must(os.RemoveAll(dir))
	if files == nil {
		return
	}
	must(os.MkdirAll(dir, 0o700))
	for name, b := range files {
		path := filepath.Join(dir, name)
		must(os.MkdirAll(filepath.Dir(path), 0o700))
		must(os.WriteFile(path, b, 0o600))
	}
}
