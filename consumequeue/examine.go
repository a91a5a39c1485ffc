package consumequeue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// Found is a name below the folder of a store.
type Found struct {
	Path    string
	Topic   coord.TopicID
	Queue   coord.QueueID
	Base    coord.Offset // of its first entry
	Size    int64
	Foreign bool // not a file of a queue; the fields above say nothing
}

// List tells of every file below dir, which need not exist.
func List(fsys vfs.FS, dir string, visit func(Found) error) error {
	topics, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("consumequeue: list %s: %w", dir, err)
	}
	for _, t := range topics {
		path := filepath.Join(dir, t.Name)
		if !t.Dir || !isDir(t.Name) {
			if err := visit(Found{Path: path, Foreign: true}); err != nil {
				return err
			}
			continue
		}
		id, _ := strconv.ParseInt(t.Name[strings.LastIndexByte(t.Name, '@')+1:], 10, 64)
		if err := listTopic(fsys, path, coord.TopicID(id), visit); err != nil {
			return err
		}
	}
	return nil
}

func listTopic(fsys vfs.FS, dir string, id coord.TopicID, visit func(Found) error) error {
	queues, err := fsys.List(dir)
	if err != nil {
		return fmt.Errorf("consumequeue: list %s: %w", dir, err)
	}
	for _, q := range queues {
		path := filepath.Join(dir, q.Name)
		n, err := strconv.ParseUint(q.Name, 10, 16)
		if err != nil || !q.Dir {
			if err := visit(Found{Path: path, Foreign: true}); err != nil {
				return err
			}
			continue
		}
		files, err := fsys.List(path)
		if err != nil {
			return fmt.Errorf("consumequeue: list %s: %w", path, err)
		}
		for _, f := range files {
			base, ok := parseFileName(f.Name)
			found := Found{
				Path: filepath.Join(path, f.Name), Topic: id, Queue: coord.QueueID(n),
				Base: base, Size: f.Size, Foreign: !ok || f.Dir,
			}
			if err := visit(found); err != nil {
				return err
			}
		}
	}
	return nil
}

// Peek reads entries of a queue's files, from offset from on, without opening a
// Store, and says which file and where in it the first one is. It returns fewer
// entries than dst takes at the end of a file, and none where there is none.
func Peek(fsys vfs.FS, dir, topic string, id coord.TopicID, q coord.QueueID, from coord.Offset, dst []Entry) (n int, file string, at int64, err error) {
	base := from - from%FileEntries
	at = int64(from-base) * EntrySize
	file = filepath.Join(dir, Dir(topic, id), strconv.Itoa(int(q)), fileName(base))
	f, err := fsys.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, file, at, nil
	}
	if err != nil {
		return 0, file, at, fmt.Errorf("consumequeue: open %s: %w", file, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	raw := make([]byte, min(len(dst), int(base+FileEntries-from))*EntrySize)
	got, err := f.ReadAt(raw, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, file, at, fmt.Errorf("consumequeue: read %s@%d: %w", file, at, err)
	}
	n = got / EntrySize
	decodeEntries(dst[:n], raw)
	return n, file, at, nil
}
