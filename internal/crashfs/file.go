package crashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/pocketmq/mq/internal/vfs"
)

// file is an open file.
type file struct {
	fs     *FS
	name   string // it was opened by
	node   *node
	closed bool // protected by the file system's mu
}

// do runs a call on an open file.
func (f *file) do(op vfs.Op, off, size int64, body func(how How) error) error {
	c := vfs.Call{Op: op, Name: f.name, Off: off, Size: size}
	return f.fs.do(c, func(how How) error {
		if f.closed {
			return named(c, fs.ErrClosed)
		}
		err := body(how)
		if errors.Is(err, io.EOF) {
			return err // bare, as io.ReaderAt wants it
		}
		return named(c, err)
	})
}

func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.do(vfs.OpRead, off, int64(len(p)), func(how How) error {
		if off < 0 {
			return fs.ErrInvalid
		}
		want := p
		if how == Partly {
			want = p[:f.fs.rng.IntN(len(p)+1)]
		}
		if off < f.node.size() {
			n = copy(want, f.node.mem[off:])
		}
		if n < len(want) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.do(vfs.OpWrite, off, int64(len(p)), func(how How) error {
		if off < 0 || off+int64(len(p)) < off {
			return fs.ErrInvalid
		}
		if how == Partly {
			p = p[:f.fs.rng.IntN(len(p)+1)]
		}
		if end := off + int64(len(p)); len(p) > 0 && end > f.node.size() {
			if err := f.fs.resizeLocked(f.node, end); err != nil {
				return err
			}
		}
		if len(p) > 0 {
			n = copy(f.node.mem[off:], p)
			f.fs.storedLocked(f.node, off, int64(n))
		}
		return nil
	})
	return n, err
}

// storedLocked notes what a store made of its pages.
func (f *FS) storedLocked(n *node, off, size int64) { n.stored(off, size, f.opts.Versions, f.rng) }

func (f *file) Size() (size int64, err error) {
	err = f.do(vfs.OpSize, 0, 0, func(How) error {
		size = f.node.size()
		return nil
	})
	return size, err
}

func (f *file) Intact(int64) error { return nil } // there is nobody else

func (f *file) Sync() error {
	return f.do(vfs.OpSync, 0, 0, func(how How) error {
		f.fs.syncLocked(f.node, how, func(int64) bool { return true })
		return nil
	})
}

// syncLocked syncs those pages of a file that part says.
func (f *FS) syncLocked(n *node, how How, part func(p int64) bool) {
	toss := func(int64) bool { return f.rng.IntN(2) == 0 }
	switch how {
	case Lose:
		n.sync(part, toss)
	case Partly:
		n.syncSome(func(p int64) bool { return part(p) && toss(p) })
	default:
		n.sync(part, part)
	}
}

func (f *file) Forget(off, n int64) error {
	return f.do(vfs.OpForget, off, n, func(How) error {
		f.node.forget(off, n)
		return nil
	})
}

func (f *file) Cut(size int64) error {
	return f.do(vfs.OpCut, 0, size, func(How) error { return f.fs.resizeLocked(f.node, size) })
}

func (f *file) Allocate(size int64) error {
	return f.do(vfs.OpAllocate, 0, size, func(how How) error {
		if grows := size - f.node.size(); how == Partly && grows > 0 {
			size -= f.fs.rng.Int64N(grows + 1)
		}
		return f.fs.resizeLocked(f.node, size)
	})
}

func (f *file) Close() error {
	return f.do(vfs.OpClose, 0, 0, func(How) error {
		f.closed = true
		f.fs.unrefLocked(f.node)
		return nil
	})
}

// resizeLocked makes a file size bytes large. A mapped file keeps its bytes where
// they are, so it cannot grow beyond the memory it has.
func (f *FS) resizeLocked(n *node, size int64) error {
	old := n.size()
	switch {
	case size < 0:
		return fs.ErrInvalid
	case size == old:
		return nil
	case size > int64(cap(n.mem)) && n.maps > 0:
		return fmt.Errorf("a mapped file cannot grow: %w", errors.ErrUnsupported)
	}
	if err := f.take(size - old); err != nil {
		return err
	}
	n.resized(old, size)
	if size <= int64(cap(n.mem)) {
		n.mem = n.mem[:max(old, size)]
		clear(n.mem[min(old, size):])
		n.mem = n.mem[:size]
	} else {
		mem := make([]byte, size, size+min(size, 64<<10))
		copy(mem, n.mem)
		n.mem = mem
	}
	if size < old && size%pageBytes != 0 {
		f.storedLocked(n, size/pageBytes*pageBytes, 1) // the rest of this page was zeroed
	}
	return nil
}

func (f *file) Map(size int64) (vfs.Mapping, error) {
	var m *mapping
	err := f.do(vfs.OpMap, 0, size, func(How) error {
		switch {
		case f.fs.opts.Portable:
			return errors.ErrUnsupported
		case size <= 0 || size > f.node.size():
			return fs.ErrInvalid
		}
		f.node.maps++
		f.node.refs++
		m = &mapping{fs: f.fs, name: f.name, node: f.node, mem: f.node.mem[:size:size]}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}
