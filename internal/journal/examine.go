package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pocketmq/mq/internal/vfs"
)

// maxFlaws is how many flaws of one generation are listed.
const maxFlaws = 1000

// Flaw is something in a journal that its writer, undisturbed, does not leave.
type Flaw struct {
	File   string // or folder
	Offset int64
	Err    error
	Damage bool // otherwise a process or a power cut at a bad moment leaves it
}

// Examination is what reading a journal found.
type Examination struct {
	Last    *Checkpoint // the newest complete one, which Open would find; nil: none
	Files   int
	Bytes   int64
	Flaws   []Flaw
	Foreign []string // names that are no generation's
}

// Examine reads the journal in dir as Open does and changes nothing. Errors are
// ErrVersion and those of the file system; a missing folder is fs.ErrNotExist.
func Examine(fsys vfs.FS, dir string) (*Examination, error) {
	numbers, dead, err := listGenerations(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("journal: examine %s: %w", dir, err)
	}
	x := &Examination{}
	for _, path := range dead {
		x.Flaws = append(x.Flaws, Flaw{File: path, Err: errors.New("discarded, and not removed yet")})
	}
	for _, number := range numbers {
		path := filepath.Join(dir, generationName(number))
		if x.Last != nil {
			x.Flaws = append(x.Flaws, Flaw{File: path, Err: errors.New("older than the generation that counts")})
			continue
		}
		if err := x.generation(fsys, path); err != nil {
			return nil, fmt.Errorf("journal: examine %s: %w", path, err)
		}
	}
	return x, x.names(fsys, dir)
}

// generation reads one.
func (x *Examination) generation(fsys vfs.FS, path string) error {
	entries, err := fsys.List(path)
	if err != nil {
		x.Flaws = append(x.Flaws, Flaw{File: path, Err: err, Damage: true})
		return nil
	}
	for _, e := range entries {
		x.Files++
		x.Bytes += e.Size
	}
	s, err := surveyFolder(fsys, path)
	if errors.Is(err, ErrVersion) {
		return err
	}
	if err != nil {
		x.Flaws = append(x.Flaws, Flaw{File: path, Err: err, Damage: true})
		return nil
	}
	for i := range s.flaws[s.whole:] {
		// Behind the last whole record damage cannot be told from what was being
		// written when the power went.
		s.flaws[s.whole+i].Damage = false
	}
	x.Flaws = append(x.Flaws, s.flaws...)
	if s.last == nil {
		x.Flaws = append(x.Flaws, Flaw{File: path, Err: errors.New("no complete checkpoint"), Damage: !s.interrupted()})
		return nil
	}
	body, err := s.body(fsys)
	if err != nil {
		x.Flaws = append(x.Flaws, Flaw{File: path, Err: err, Damage: true})
		return nil
	}
	x.Last = &Checkpoint{Clean: s.last.clean, Body: body}
	return nil
}

// interrupted reports whether the generation is what a process leaves that ended
// while it wrote the first checkpoint of it: nothing, or whole records of one from
// the first entry on, and nothing else that is odd.
func (s *survey) interrupted() bool {
	if len(s.files) > 0 && s.files[0].index != 1 {
		return false // of what it began with, the front has been dropped since
	}
	if s.current.open {
		return len(s.flaws) == 1 // says just that
	}
	return s.top == 0 && len(s.flaws) == 0
}

// names lists what does not belong into the folder.
func (x *Examination) names(fsys vfs.FS, dir string) error {
	entries, err := fsys.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("journal: examine %s: %w", dir, err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name, deadSuffix)
		if _, err := strconv.ParseUint(name, 10, 62); err != nil || len(name) != 20 {
			x.Foreign = append(x.Foreign, filepath.Join(dir, e.Name))
		}
	}
	return nil
}
