package crashfs

import (
	"fmt"

	"github.com/pocketmq/mq/internal/vfs"
)

// mapping shares the bytes that processes see of a file. A store in it is noted
// when it is over; the rule of words stands for what is seen of it before.
type mapping struct {
	fs   *FS
	name string
	node *node
	mem  []byte // nil after Unmap

	// Protected by the file system's mu.
	off, n int64 // reserved and not committed; n 0: nothing
	trap   *trap // what Reserve handed out in place of mem[off:], nil: mem itself
}

func (m *mapping) do(op vfs.Op, off, n int64, body func() error) error {
	return m.fs.do(vfs.Call{Op: op, Name: m.name, Off: off, Size: n}, func(How) error { return body() })
}

// Release changes nothing that a crash could show.
func (m *mapping) Release(off, n int64) error { return nil }

func (m *mapping) Populate(off, n int64) error {
	return m.do(vfs.OpPopulate, off, n, func() error { return nil })
}

func (m *mapping) Sync(off, n int64) error {
	c := vfs.Call{Op: vfs.OpSync, Name: m.name, Off: off, Size: n}
	return m.fs.do(c, func(how How) error {
		m.fs.syncLocked(m.node, how, func(p int64) bool { return (p+1)*pageBytes > off && p*pageBytes < off+n })
		return nil
	})
}

func (m *mapping) Reserve(off, n int64) []byte {
	buf := m.mem[off : off+n : off+n]
	f := m.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return make([]byte, n)
	}
	m.settleLocked() // a store that was given up left its traces
	m.off, m.n = off, n
	if n == 0 || !f.faultsNowLocked() {
		return buf
	}
	good := f.rng.Int64N(n) &^ (wordBytes - 1)
	t, trapped, ok := setTrap(buf[:good], n)
	if !ok {
		panic(memoryFault{})
	}
	m.trap = t
	f.struck = append(f.struck, m)
	return trapped
}

// memoryFault stands for a signal where there is no memory to raise one.
type memoryFault struct{}

func (memoryFault) Error() string { return "crashfs: memory fault" }

// Addr makes it look like what debug.SetPanicOnFault panics with.
func (memoryFault) Addr() uintptr { return 0 }

func (m *mapping) Commit(off, n int64) error {
	return m.do(vfs.OpCommit, off, n, func() error {
		if off != m.off || n > m.n {
			return fmt.Errorf("crashfs: commit [%d, +%d) of %s: [%d, +%d) is reserved", off, n, m.name, m.off, m.n)
		}
		m.settleLocked()
		return nil
	})
}

// settleLocked notes what the last store did to its pages. The writer, or a
// power cut, calls it, so nobody stores meanwhile.
func (m *mapping) settleLocked() {
	if m.trap != nil {
		copy(m.mem[m.off:], m.trap.open)
		m.trap.release()
		m.trap = nil
	}
	if m.n > 0 {
		m.fs.storedLocked(m.node, m.off, m.n)
		m.n = 0
	}
}

func (m *mapping) View(off, n int64) []byte { return m.mem[off : off+n : off+n] }

func (m *mapping) Unmap() error {
	return m.do(vfs.OpUnmap, 0, 0, func() error {
		if m.mem == nil {
			return nil
		}
		m.settleLocked()
		m.mem = nil
		m.node.maps--
		m.fs.unrefLocked(m.node)
		return nil
	})
}
