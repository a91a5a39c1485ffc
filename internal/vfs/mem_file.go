package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
)

// trimSlack is how much a node may hold beyond its size: growing doubles up to
// it and adds it from there on, so memory follows the limit closely.
const trimSlack = 1 << 20

// memFile is one open file of a Mem.
type memFile struct {
	fs     *Mem
	name   string // it was opened by; a rename does not show
	node   *memNode
	closed atomic.Bool
}

func (f *memFile) enter(op Op, off, n int64) error {
	if f.closed.Load() {
		return pathError(op.String(), f.name, fs.ErrClosed)
	}
	return f.fs.enter(op, f.name, off, n)
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.enter(OpRead, off, int64(len(p))); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.name, fs.ErrInvalid)
	}
	f.node.mu.RLock()
	defer f.node.mu.RUnlock()
	if off >= int64(len(f.node.data)) {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.enter(OpWrite, off, int64(len(p))); err != nil {
		return 0, err
	}
	if off < 0 || off+int64(len(p)) < off {
		return 0, pathError("write", f.name, fs.ErrInvalid)
	}
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if end := off + int64(len(p)); len(p) > 0 && end > int64(len(n.data)) {
		if err := f.resizeLocked(end); err != nil {
			return 0, pathError("write", f.name, err)
		}
	}
	return copy(n.data[min(off, int64(len(n.data))):], p), nil
}

func (f *memFile) Size() (int64, error) {
	if err := f.enter(OpSize, 0, 0); err != nil {
		return 0, err
	}
	f.node.mu.RLock()
	defer f.node.mu.RUnlock()
	return int64(len(f.node.data)), nil
}

func (f *memFile) Sync() error               { return f.enter(OpSync, 0, 0) }
func (f *memFile) Forget(off, n int64) error { return f.enter(OpForget, off, n) }
func (f *memFile) Intact(int64) error        { return nil } // there is nobody else

func (f *memFile) Cut(size int64) error {
	if err := f.enter(OpCut, 0, size); err != nil {
		return err
	}
	return f.resize("cut", size)
}

func (f *memFile) Allocate(size int64) error {
	if err := f.enter(OpAllocate, 0, size); err != nil {
		return err
	}
	return f.resize("allocate", size)
}

func (f *memFile) Close() error {
	if err := f.enter(OpClose, 0, 0); err != nil {
		return err
	}
	if f.closed.Swap(true) {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.fs.treeMu.Lock()
	defer f.fs.treeMu.Unlock()
	f.fs.unrefLocked(f.node)
	return nil
}

func (f *memFile) resize(op string, size int64) error {
	if size < 0 {
		return pathError(op, f.name, fs.ErrInvalid)
	}
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	if err := f.resizeLocked(size); err != nil {
		return pathError(op, f.name, err)
	}
	return nil
}

// resizeLocked makes the node size bytes large. A mapped file keeps its bytes
// where they are, so it cannot grow beyond the memory it has.
func (f *memFile) resizeLocked(size int64) error {
	n := f.node
	old := int64(len(n.data))
	if size > int64(cap(n.data)) && n.maps > 0 {
		return fmt.Errorf("a mapped file cannot grow: %w", errors.ErrUnsupported)
	}
	if err := f.fs.take(size - old); err != nil {
		return err
	}
	if size <= int64(cap(n.data)) {
		n.data = n.data[:size]
		if size > old {
			clear(n.data[old:]) // may hold what an earlier cut took away
		}
		n.trimLocked()
		return nil
	}
	room := size + min(size, trimSlack)
	if old == 0 {
		room = size // most likely all there will be
	}
	data := make([]byte, size, room)
	copy(data, n.data)
	n.data = data
	return nil
}

// trimLocked gives back memory that a cut left unused.
func (n *memNode) trimLocked() {
	if n.maps == 0 && cap(n.data)-len(n.data) > trimSlack {
		n.data = append(make([]byte, 0, len(n.data)), n.data...)
	}
}

func (f *memFile) Map(size int64) (Mapping, error) {
	if err := f.enter(OpMap, 0, size); err != nil {
		return nil, err
	}
	f.fs.treeMu.Lock()
	defer f.fs.treeMu.Unlock()
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if size <= 0 || size > int64(len(n.data)) {
		return nil, fmt.Errorf("vfs: map %d bytes of %s: it has %d", size, f.name, len(n.data))
	}
	n.maps++
	n.refs++
	return &memMapping{fs: f.fs, name: f.name, node: n, data: n.data[:size:size]}, nil
}

// memMapping shares the bytes of its file.
type memMapping struct {
	fs   *Mem
	name string
	node *memNode
	data []byte // nil after Unmap
}

func (p *memMapping) Release(off, n int64) error  { return nil }
func (p *memMapping) Populate(off, n int64) error { return p.fs.enter(OpPopulate, p.name, off, n) }
func (p *memMapping) Sync(off, n int64) error     { return p.fs.enter(OpSync, p.name, off, n) }
func (p *memMapping) Reserve(off, n int64) []byte { return p.data[off : off+n : off+n] }
func (p *memMapping) Commit(off, n int64) error   { return p.fs.enter(OpCommit, p.name, off, n) }
func (p *memMapping) View(off, n int64) []byte    { return p.data[off : off+n : off+n] }

func (p *memMapping) Unmap() error {
	if err := p.fs.enter(OpUnmap, p.name, 0, 0); err != nil {
		return err
	}
	if p.data == nil {
		return nil
	}
	p.data = nil
	p.fs.treeMu.Lock()
	defer p.fs.treeMu.Unlock()
	p.node.mu.Lock()
	p.node.maps--
	p.node.trimLocked()
	p.node.mu.Unlock()
	p.fs.unrefLocked(p.node)
	return nil
}
