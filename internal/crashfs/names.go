package crashfs

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// node is a folder or a file, as an inode is: it does not know its name.
type node struct {
	names map[string]*node // of a folder, as processes see them; nil: a file
	disk  map[string]*node // of a folder, as they are on the disk

	content     // of a file
	refs    int // of a file: its name, open files, mappings
}

func newFolder() *node { return &node{names: make(map[string]*node), disk: make(map[string]*node)} }

// bytes returns the sizes of all files in and below n.
func (n *node) bytes() int64 {
	total := n.size()
	for _, below := range n.names {
		total += below.bytes()
	}
	return total
}

// change is what one call does to names. It is on the disk as a whole or not at
// all.
type change []edit

// place is where a name is.
type place struct {
	folder *node
	name   string
}

// edit makes one name in a folder stand for something else.
type edit struct {
	place
	to  *node // nil: there is no such name any more
	was *node // what it stood for before, nil: nothing
}

// put makes the edit in the names of its folder.
func (e edit) put(names map[string]*node) {
	if e.to == nil {
		delete(names, e.name)
		return
	}
	names[e.name] = e.to
}

// changeLocked makes edits, as processes see them.
func (f *FS) changeLocked(edits ...edit) {
	for _, e := range edits {
		e.put(e.folder.names)
	}
	f.changes = append(f.changes, edits)
}

// requirements is what must be on the disk before some changes can be.
type requirements struct {
	names   map[place]bool
	folders map[*node]bool // that are removed: everything inside
}

func newRequirements() requirements {
	return requirements{names: make(map[place]bool), folders: make(map[*node]bool)}
}

// add takes in what c requires of older changes.
func (r requirements) add(c change) {
	for _, e := range c {
		r.names[e.place] = true
		if e.to == nil && e.was != nil && e.was.names != nil {
			r.folders[e.was] = true
		}
	}
}

// wants tells whether c has to come first.
func (r requirements) wants(c change) bool {
	return slices.ContainsFunc(c, func(e edit) bool {
		return r.folders[e.folder] || r.names[e.place]
	})
}

// closeOver adds to the chosen changes those that they come after. Without it a
// file could be lost whose old name was given to another one, or one be found
// under two names.
func closeOver(changes []change, chosen []bool) {
	r := newRequirements()
	for i := len(changes) - 1; i >= 0; i-- {
		chosen[i] = chosen[i] || r.wants(changes[i])
		if chosen[i] {
			r.add(changes[i])
		}
	}
}

// syncNamesLocked makes every change in a folder durable for which choose says
// so, and what those changes come after.
func (f *FS) syncNamesLocked(dir *node, choose func() bool) {
	chosen := make([]bool, len(f.changes))
	for i, c := range f.changes {
		inside := slices.ContainsFunc(c, func(e edit) bool { return e.folder == dir })
		chosen[i] = inside && choose()
	}
	closeOver(f.changes, chosen)
	var rest []change
	for i, c := range f.changes {
		if !chosen[i] {
			rest = append(rest, c)
			continue
		}
		for _, e := range c {
			e.put(e.folder.disk)
		}
	}
	f.changes = rest
}

// survivors returns the root of what a power cut leaves.
func (f *FS) survivors(t temper, rng *rand.Rand) *node {
	chosen := make([]bool, len(f.changes))
	prefix := rng.IntN(len(f.changes) + 1)
	for i := range chosen {
		if t.ordered {
			chosen[i] = i < prefix
		} else {
			chosen[i] = rng.Float64() < t.names
		}
	}
	closeOver(f.changes, chosen)
	disks := make(map[*node]map[string]*node)
	for i, c := range f.changes {
		if !chosen[i] {
			continue
		}
		for _, e := range c {
			if disks[e.folder] == nil {
				disks[e.folder] = maps.Clone(e.folder.disk)
			}
			e.put(disks[e.folder])
		}
	}
	return f.root.survivor(disks, t, rng)
}

// survivor returns what is left of n and below it. disks are the folders that
// are not as their node says.
func (n *node) survivor(disks map[*node]map[string]*node, t temper, rng *rand.Rand) *node {
	if n.names == nil {
		return &node{content: n.content.survivor(t, rng), refs: 1}
	}
	names := n.disk
	if changed, ok := disks[n]; ok {
		names = changed
	}
	fresh := newFolder()
	// Sorted, so that the generator gives every file the same each time.
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fresh.names[name] = names[name].survivor(disks, t, rng)
	}
	fresh.disk = maps.Clone(fresh.names)
	return fresh
}

// cloneLocked copies everything, and the changes that are not durable.
func (f *FS) cloneLocked() (root *node, changes []change) {
	copies := make(map[*node]*node)
	root = cloneNode(f.root, copies)
	for _, c := range f.changes {
		fresh := make(change, len(c))
		for i, e := range c {
			fresh[i] = edit{
				place: place{cloneNode(e.folder, copies), e.name},
				to:    cloneNode(e.to, copies), was: cloneNode(e.was, copies),
			}
		}
		changes = append(changes, fresh)
	}
	return root, changes
}

// cloneNode copies n and what can be reached from it, once.
func cloneNode(n *node, copies map[*node]*node) *node {
	if n == nil || copies[n] != nil {
		return copies[n]
	}
	fresh := &node{refs: 1}
	copies[n] = fresh
	if n.names == nil {
		fresh.content = n.content.clone()
		return fresh
	}
	fresh.names, fresh.disk = make(map[string]*node), make(map[string]*node)
	for name, below := range n.names {
		fresh.names[name] = cloneNode(below, copies)
	}
	for name, below := range n.disk {
		fresh.disk[name] = cloneNode(below, copies)
	}
	return fresh
}

// split returns the elements of a cleaned name; the root has none.
func split(name string) []string {
	if name == "." {
		return nil
	}
	return strings.FieldsFunc(name, func(r rune) bool { return r == filepath.Separator })
}

// lookup returns the file or folder of a name.
func (f *FS) lookup(name string) (*node, error) {
	n := f.root
	for _, part := range split(filepath.Clean(name)) {
		if n.names == nil {
			return nil, syscall.ENOTDIR
		}
		if n = n.names[part]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

// lookupFolder returns the folder of a name.
func (f *FS) lookupFolder(name string) (*node, error) {
	n, err := f.lookup(name)
	if err == nil && n.names == nil {
		err = syscall.ENOTDIR
	}
	return n, err
}

// parent returns the folder that holds a name, and the name's last element.
func (f *FS) parent(name string) (folder *node, base string, err error) {
	name = filepath.Clean(name)
	if len(split(name)) == 0 {
		return nil, "", fs.ErrInvalid // the root
	}
	folder, err = f.lookupFolder(filepath.Dir(name))
	return folder, filepath.Base(name), err
}
