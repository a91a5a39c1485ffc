package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pocketmq/mq/internal/vfs"
)

// A generation is a folder with one log of the library, named by a number in 20
// digits. There is a second one only from a failure until the next checkpoint
// is complete:
//
//	|gen 7: checkpoint 41 | torn …|
//	                              |gen 8: chunks … closing record|
//	                                             gen 7 discarded ^
//
// A generation is discarded by renaming it, which cannot happen by halves, so
// that a part of its files, say all but a withdrawal, is never taken for it.

const deadSuffix = ".dead"

func generationName(number uint64) string { return fmt.Sprintf("%020d", number) }

// listGenerations returns the numbers of all generations in dir, newest first,
// and the folders that wait to be removed.
func listGenerations(fsys vfs.FS, dir string) (numbers []uint64, dead []string, err error) {
	entries, err := fsys.List(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name, isDead := strings.CutSuffix(e.Name, deadSuffix)
		number, err := strconv.ParseUint(name, 10, 62) // so that there is always a next one
		if err != nil || len(name) != 20 {
			continue // not ours
		}
		if isDead {
			dead = append(dead, filepath.Join(dir, e.Name))
			continue
		}
		numbers = append(numbers, number)
	}
	slices.Reverse(numbers)
	return numbers, dead, nil
}

// discard makes a generation go for good: once it returns nil, no crash brings
// it back. Removing the files is left to the next Open if it fails.
func discard(fsys vfs.FS, path string) error {
	dead := path + deadSuffix
	if err := fsys.RemoveAll(dead); err != nil {
		return err
	}
	if err := fsys.Rename(path, dead); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = fsys.RemoveAll(dead)
	return nil
}
