package journal

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// A journal whose older checkpoint was not dropped yet, as a crash would leave
// it; black-box tests cannot make one.

func pattern(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func writeAll(p []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(p)
		return err
	}
}

// twoCheckpoints writes bodies a and b, the second one clean, and returns the
// generation. Nothing is dropped.
func twoCheckpoints(t testing.TB, dir string, a, b []byte) (gen string) {
	t.Helper()
	gen = filepath.Join(dir, generationName(1))
	require.NoError(t, os.MkdirAll(gen, 0o700))
	lib, err := openLibrary(gen, 1)
	require.NoError(t, err)
	for i, p := range [][]byte{a, b} {
		w := writing{fs: vfs.OS(), dir: gen, lib: lib, number: uint64(i + 1)}
		require.NoError(t, w.chunks(writeAll(p)))
		require.NoError(t, w.closing(i == 1))
	}
	require.NoError(t, lib.close())
	return gen
}

// check opens a damaged journal and checks what is promised: it opens, and finds
// one of the bodies or nothing.
func check(t *testing.T, dir, what string, bodies ...[]byte) (found int) {
	t.Helper()
	j, err := Open(dir, nil)
	require.NoError(t, err, what)
	last, found := j.Last(), -1
	if last != nil {
		found = slices.IndexFunc(bodies, func(b []byte) bool { return bytes.Equal(b, last.Body) })
		require.GreaterOrEqual(t, found, 0, "%s: a body nobody wrote", what)
		require.False(t, last.Clean, "%s: damaged, so not clean", what)
		require.NoError(t, j.Discarded(), what)
	} else {
		require.Error(t, j.Discarded(), what)
	}
	require.NoError(t, j.Close(), what)
	return found
}

// checkGoesOn also writes to it.
func checkGoesOn(t *testing.T, dir, what string, bodies ...[]byte) (found int) {
	t.Helper()
	found = check(t, dir, what, bodies...)
	j, err := Open(dir, nil)
	require.NoError(t, err, what)
	require.NoError(t, j.Withdraw(), what)
	require.NoError(t, j.Write(writeAll([]byte("next")), true), what)
	require.NoError(t, j.Close(), what)
	j, err = Open(dir, nil)
	require.NoError(t, err, what)
	require.Equal(t, &Checkpoint{Clean: true, Body: []byte("next")}, j.Last(), what)
	require.NoError(t, j.Close(), what)
	return found
}

// mutilate runs damage on a copy of a journal with two checkpoints again and
// again; each call gets the bytes of the last file and returns others.
func mutilate(t *testing.T, a, b []byte, n int, damage func(i int, file []byte) []byte) (found []int) {
	t.Helper()
	origin := filepath.Join(t.TempDir(), "origin")
	gen := twoCheckpoints(t, origin, a, b)
	entries, err := os.ReadDir(gen)
	require.NoError(t, err)
	name := entries[len(entries)-1].Name()
	whole, err := os.ReadFile(filepath.Join(gen, name))
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "journal")
	for i := range n {
		bad := damage(i, bytes.Clone(whole))
		if bad == nil || bytes.Equal(bad, whole) {
			continue
		}
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.CopyFS(dir, os.DirFS(origin)))
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(gen), name), bad, 0o600))
		goOn := check
		if i%8 == 0 {
			goOn = checkGoesOn // costs a dozen fsyncs
		}
		found = append(found, goOn(t, dir, fmt.Sprintf("damage %d", i), a, b))
	}
	return found
}

func TestTornTailAtEveryByte(t *testing.T) {
	t.Parallel()
	a, b := pattern(1, 20), pattern(2, 40)
	size := 2*(1+headerSize) + 2*(1+headerSize+closingSize) + 60
	found := mutilate(t, a, b, size, func(i int, file []byte) []byte {
		require.Len(t, file, size)
		return file[:i]
	})
	whole := 1 + headerSize + 20 + 1 + headerSize + closingSize
	for i, f := range found {
		require.Equal(t, i >= whole, f == 0, "cut at %d: the first checkpoint counts once it is whole", i)
		require.NotEqual(t, 1, f, "cut at %d: the second is never whole", i)
	}
}

func TestZeroBytesAtTheEnd(t *testing.T) {
	t.Parallel()
	found := mutilate(t, pattern(1, 40), pattern(2, 50), 40, func(i int, file []byte) []byte {
		return append(file, make([]byte, i*i*i)...)
	})
	for _, f := range found {
		require.Equal(t, 1, f, "they are no entries, and do no harm to what is before them")
	}
}

// TestLostPages has zeros where the last bytes should be, as after a power cut
// that kept the size of the file but not its content.
func TestLostPages(t *testing.T) {
	t.Parallel()
	mutilate(t, pattern(1, 20), pattern(2, 30), 90, func(i int, file []byte) []byte {
		clear(file[len(file)-2*i-1:])
		return file
	})
}

func TestBitFlips(t *testing.T) {
	t.Parallel()
	a, b := pattern(1, 20), pattern(2, 30)
	found := mutilate(t, a, b, 70, func(i int, file []byte) []byte {
		if 3*i >= len(file) {
			return nil
		}
		file[3*i] ^= []byte{0xff, 1 << (i % 8)}[i%2]
		return file
	})
	require.Contains(t, found, 1, "damage to the older one leaves the newer one")
	require.Contains(t, found, 0)
}

// TestBitFlipsInMemory tries every bit, without what comes after reading.
func TestBitFlipsInMemory(t *testing.T) {
	t.Parallel()
	a, b := pattern(1, 20), pattern(2, 30)
	whole := readOnly(t, twoCheckpoints(t, t.TempDir(), a, b))
	for i := range len(whole) * 8 {
		bad := bytes.Clone(whole)
		bad[i/8] ^= 1 << (i % 8)
		s, mem := surveyBytes(t, bad)
		require.Error(t, s.odd, "bit %d", i)
		if s.last == nil {
			continue
		}
		require.False(t, s.last.clean, "bit %d", i)
		body, err := s.body(mem)
		if err == nil && !bytes.Equal(body, a) && !bytes.Equal(body, b) {
			t.Fatalf("bit %d: a body nobody wrote", i)
		}
	}
}

// readOnly returns the bytes of the only file in a folder.
func readOnly(t testing.TB, gen string) []byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(gen, "*"))
	require.NoError(t, err)
	require.Len(t, paths, 1)
	p, err := os.ReadFile(paths[0])
	require.NoError(t, err)
	return p
}

// surveyBytes surveys a folder with one file.
func surveyBytes(t testing.TB, file []byte) (*survey, *vfs.Mem) {
	t.Helper()
	mem := vfs.NewMem(0)
	require.NoError(t, mem.MkdirAll("gen"))
	f, err := mem.Create("gen/00000000000000000001", 0)
	require.NoError(t, err)
	_, err = f.WriteAt(file, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	s, err := surveyFolder(mem, "gen")
	require.NoError(t, err)
	return s, mem
}

// TestFiles does to whole files what a crash, or somebody with a broom, does.
func TestFiles(t *testing.T) {
	t.Parallel()
	a, b := pattern(1, 3<<20), pattern(2, 4<<20)
	origin := filepath.Join(t.TempDir(), "origin")
	names := func(gen string) (paths []string) {
		paths, err := filepath.Glob(filepath.Join(gen, "*"))
		require.NoError(t, err)
		require.Greater(t, len(paths), 4)
		return paths
	}
	names(twoCheckpoints(t, origin, a, b))
	for name, row := range map[string]struct {
		damage func(files []string) error
		found  int // -1 is none
	}{
		"first gone":      {func(f []string) error { return os.Remove(f[0]) }, 1},
		"third gone":      {func(f []string) error { return os.Remove(f[2]) }, 1},
		"fifth gone":      {func(f []string) error { return os.Remove(f[4]) }, 0},
		"last gone":       {func(f []string) error { return os.Remove(f[len(f)-1]) }, 0},
		"all but the end": {func(f []string) error { return removeAll(f[:len(f)-1]) }, -1},
		"first empty":     {func(f []string) error { return os.Truncate(f[0], 0) }, 1},
		"third empty":     {func(f []string) error { return os.Truncate(f[2], 0) }, 1},
		"cut everywhere":  {func(f []string) error { return cutAll(f) }, -1},
		"renamed":         {func(f []string) error { return os.Rename(f[1], f[1]+".START") }, 1},
		"end":             {func(f []string) error { return os.WriteFile(f[1]+".END", nil, 0o600) }, 1},
		"temp":            {func(f []string) error { return os.WriteFile(f[1]+".START.TEMP", nil, 0o600) }, 1},
		"far too large":   {func(f []string) error { return os.Truncate(f[len(f)-1], 1<<40) }, 1},
		"swapped":         {func(f []string) error { return swap(f[0], f[1]) }, 1},
		"a folder": {func(f []string) error {
			return os.MkdirAll(filepath.Join(filepath.Dir(f[0]), "00000000000000000099"), 0o700)
		}, 1},
		"not a file": {func(f []string) error {
			return os.Symlink(f[0], filepath.Join(filepath.Dir(f[0]), "00000000000000000099"))
		}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "journal")
			require.NoError(t, os.CopyFS(dir, os.DirFS(origin)))
			require.NoError(t, row.damage(names(filepath.Join(dir, generationName(1)))))
			require.Equal(t, row.found, checkGoesOn(t, dir, name, a, b))
		})
	}
}

func removeAll(paths []string) error {
	for _, p := range paths {
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	return nil
}

func cutAll(paths []string) error {
	for _, p := range paths {
		if err := os.Truncate(p, 1000); err != nil {
			return err
		}
	}
	return nil
}

func swap(a, b string) error {
	for _, r := range [][2]string{{a, a + "x"}, {b, a}, {a + "x", b}} {
		if err := os.Rename(r[0], r[1]); err != nil {
			return err
		}
	}
	return nil
}

// TestInterruptedDrop stops the library at every step of dropping the front.
func TestInterruptedDrop(t *testing.T) {
	t.Parallel()
	a, b := pattern(1, 1500<<10), pattern(2, 1500<<10)
	before := twoCheckpoints(t, filepath.Join(t.TempDir(), "before"), a, b)
	after := twoCheckpoints(t, filepath.Join(t.TempDir(), "after"), a, b)
	s, err := surveyFolder(vfs.OS(), before)
	require.NoError(t, err)
	require.NoError(t, s.odd)
	lib, err := openLibrary(after, s.next)
	require.NoError(t, err)
	first := uint64(8) // six chunks and a closing record before it
	require.NoError(t, lib.dropBefore(first))
	require.NoError(t, lib.close())

	start := filepath.Join(after, fmt.Sprintf("%020d", first))
	content, err := os.ReadFile(start)
	require.NoError(t, err)
	names, err := filepath.Glob(filepath.Join(before, "*"))
	require.NoError(t, err)
	require.Greater(t, len(names), 2)
	for removed := range 3 { // old files that are gone already
		dir := filepath.Join(t.TempDir(), "journal")
		gen := filepath.Join(dir, generationName(1))
		require.NoError(t, os.CopyFS(gen, os.DirFS(before)))
		require.NoError(t, os.WriteFile(filepath.Join(gen, filepath.Base(start)+startSuffix), content, 0o600))
		for _, n := range names[:removed] {
			if filepath.Base(n) < filepath.Base(start) {
				require.NoError(t, os.Remove(filepath.Join(gen, filepath.Base(n))))
			}
		}
		require.Equal(t, 1, checkGoesOn(t, dir, "interrupted drop", a, b))
	}
}
