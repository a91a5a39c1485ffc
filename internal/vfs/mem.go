package vfs

import (
	"cmp"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Mem is a file system on the heap: what a memory broker stores in, and what
// tests break. Sync and SyncDir do nothing, for a heap is lost as a whole.
// There is one root; relative names start there too.
//
// The sizes of all files together stay within a limit; what goes beyond fails
// with syscall.ENOSPC. A removed file counts until it is closed and unmapped.
type Mem struct {
	faults // calls, their log, and the errors that tests inject

	limit int64        // bytes
	used  atomic.Int64 // bytes, sizes of all nodes

	treeMu sync.Mutex // protects every node's names and refs; taken before a node's mu
	root   *memNode
}

// memNode is a folder or a file.
type memNode struct {
	names map[string]*memNode // of a folder, by last element; nil: a file
	refs  int                 // its name, open files, mappings; at 0 its bytes are given back

	mu   sync.RWMutex // protects data and maps; mapped bytes are stored to without it
	data []byte
	maps int // living mappings; data must not move while there are any
}

func newFolder() *memNode { return &memNode{names: make(map[string]*memNode), refs: 1} }

// NewMem returns an empty file system that holds at most limit bytes; 0 or less
// means no limit.
func NewMem(limit int64) *Mem {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	return &Mem{limit: limit, root: newFolder()}
}

// Clone returns a copy of all files and folders, without injected errors and
// without the log: a store that is opened on it sees what a process that was
// killed now would leave. Nobody may write meanwhile.
func (m *Mem) Clone() *Mem {
	c := NewMem(m.limit)
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	c.root = c.cloneNode(m.root)
	return c
}

// cloneNode copies a node of another Mem, counting its bytes as c's own.
func (c *Mem) cloneNode(n *memNode) *memNode {
	if n.names != nil {
		folder := newFolder()
		for name, below := range n.names {
			folder.names[name] = c.cloneNode(below)
		}
		return folder
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	c.used.Add(int64(len(n.data)))
	return &memNode{refs: 1, data: slices.Clone(n.data)}
}

// Used returns the bytes that count against the limit.
func (m *Mem) Used() int64 { return m.used.Load() }

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	name = filepath.Clean(name)
	if err := m.enter(OpOpen, name, 0, 0); err != nil {
		return nil, err
	}
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	n, err := m.nodeLocked("open", name)
	if err != nil {
		return nil, err
	}
	if n.names != nil {
		return nil, pathError("open", name, syscall.EISDIR)
	}
	n.refs++
	return &memFile{fs: m, name: name, node: n}, nil
}

// Create implements FS.
func (m *Mem) Create(name string, size int64) (File, error) {
	name = filepath.Clean(name)
	if err := m.enter(OpCreate, name, 0, size); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, pathError("create", name, fs.ErrInvalid)
	}
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	folder, base, err := m.folderOfLocked("create", name)
	if err != nil {
		return nil, err
	}
	if folder.names[base] != nil {
		return nil, pathError("create", name, fs.ErrExist)
	}
	if err := m.take(size); err != nil {
		return nil, pathError("create", name, err)
	}
	n := &memNode{refs: 2, data: make([]byte, size)}
	folder.names[base] = n
	return &memFile{fs: m, name: name, node: n}, nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]Entry, error) {
	dir = filepath.Clean(dir)
	if err := m.enter(OpList, dir, 0, 0); err != nil {
		return nil, err
	}
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	folder, err := m.folderLocked("list", dir)
	if err != nil {
		return nil, err
	}
	list := make([]Entry, 0, len(folder.names))
	for name, n := range folder.names {
		n.mu.RLock()
		list = append(list, Entry{Name: name, Size: int64(len(n.data)), Dir: n.names != nil})
		n.mu.RUnlock()
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	dir = filepath.Clean(dir)
	if err := m.enter(OpMkdirAll, dir, 0, 0); err != nil {
		return err
	}
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	n := m.root
	for _, part := range split(dir) {
		if n.names == nil {
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		if n.names[part] == nil {
			n.names[part] = newFolder()
		}
		n = n.names[part]
	}
	if n.names == nil {
		return pathError("mkdir", dir, syscall.ENOTDIR)
	}
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	if err := m.enter(OpRename, from, 0, 0); err != nil {
		return err
	}
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	oldFolder, oldBase, err := m.folderOfLocked("rename", from)
	if err != nil {
		return err
	}
	newFolder, newBase, err := m.folderOfLocked("rename", to)
	if err != nil {
		return err
	}
	n, there := oldFolder.names[oldBase], newFolder.names[newBase]
	switch {
	case n == nil:
		return pathError("rename", from, fs.ErrNotExist)
	case n == there:
		return nil
	case strings.HasPrefix(to, from+string(filepath.Separator)):
		return pathError("rename", to, fs.ErrInvalid) // into itself
	case there != nil && (there.names != nil || n.names != nil):
		return pathError("rename", to, fs.ErrExist)
	case there != nil:
		m.unrefLocked(there)
	}
	delete(oldFolder.names, oldBase)
	newFolder.names[newBase] = n
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	name = filepath.Clean(name)
	if err := m.enter(OpRemove, name, 0, 0); err != nil {
		return err
	}
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	folder, base, err := m.folderOfLocked("remove", name)
	if err != nil {
		return err
	}
	n := folder.names[base]
	if n == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if len(n.names) > 0 {
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	delete(folder.names, base)
	m.unrefLocked(n)
	return nil
}

// RemoveAll implements FS.
func (m *Mem) RemoveAll(dir string) error {
	dir = filepath.Clean(dir)
	if err := m.enter(OpRemoveAll, dir, 0, 0); err != nil {
		return err
	}
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	folder, base, err := m.folderOfLocked("remove", dir)
	if err != nil || folder.names[base] == nil {
		return nil // nothing of that name, as wished
	}
	m.unlinkLocked(folder.names[base])
	delete(folder.names, base)
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	if err := m.enter(OpSyncDir, dir, 0, 0); err != nil {
		return err
	}
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	_, err := m.folderLocked("sync", dir)
	return err
}

// Free implements FS.
func (m *Mem) Free(dir string) (int64, error) {
	if err := m.enter(OpFree, filepath.Clean(dir), 0, 0); err != nil {
		return 0, err
	}
	return m.limit - m.used.Load(), nil
}

// take counts n more bytes, or fewer if n is negative, against the limit.
func (m *Mem) take(n int64) error {
	for {
		used := m.used.Load()
		if n > m.limit-used {
			return syscall.ENOSPC
		}
		if m.used.CompareAndSwap(used, used+n) {
			return nil
		}
	}
}

// unlinkLocked drops the names of n and of everything below it.
func (m *Mem) unlinkLocked(n *memNode) {
	for _, below := range n.names {
		m.unlinkLocked(below)
	}
	m.unrefLocked(n)
}

// unrefLocked drops one reference to n; the last one gives its bytes back.
func (m *Mem) unrefLocked(n *memNode) {
	n.refs--
	if n.refs > 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m.used.Add(-int64(len(n.data)))
	n.data = nil
}

// nodeLocked returns the file or folder of a cleaned name.
func (m *Mem) nodeLocked(op, name string) (*memNode, error) {
	n := m.root
	for _, part := range split(name) {
		if n.names == nil {
			return nil, pathError(op, name, syscall.ENOTDIR)
		}
		if n = n.names[part]; n == nil {
			return nil, pathError(op, name, fs.ErrNotExist)
		}
	}
	return n, nil
}

// folderLocked returns the folder of a cleaned name.
func (m *Mem) folderLocked(op, dir string) (*memNode, error) {
	n, err := m.nodeLocked(op, dir)
	if err == nil && n.names == nil {
		err = pathError(op, dir, syscall.ENOTDIR)
	}
	return n, err
}

// folderOfLocked returns the folder that holds a cleaned name, and the name's
// last element.
func (m *Mem) folderOfLocked(op, name string) (folder *memNode, base string, err error) {
	if len(split(name)) == 0 {
		return nil, "", pathError(op, name, fs.ErrInvalid) // the root
	}
	folder, err = m.folderLocked(op, filepath.Dir(name))
	return folder, filepath.Base(name), err
}

// split returns the elements of a cleaned name; the root has none.
func split(name string) []string {
	if name == "." {
		return nil
	}
	return strings.FieldsFunc(name, func(r rune) bool { return r == filepath.Separator })
}

func pathError(op, name string, err error) error {
	return fmt.Errorf("vfs: %s %s: %w", op, name, err)
}
