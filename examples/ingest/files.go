package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is one source file: its messages carry tag as their tag and name as
// their key.
type file struct {
	path string // to open it
	name string // relative to the source directory, with slashes
	tag  string
}

// findFiles lists the regular .go files under dir. What cannot be listed is an
// error: a file left out on both sides would look like agreement.
func findFiles(dir string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		files = append(files, file{path: path, name: name, tag: tagOf(name, filepath.Base(dir))})
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no .go files under %s", dir)
	}
	return files, err
}

// maxTag is the longest tag that a message may have.
const maxTag = 127

// tagOf returns the first folder of name, or root for a file that lies in the
// source directory itself.
func tagOf(name, root string) string {
	tag, _, nested := strings.Cut(name, "/")
	if !nested {
		tag = root
	}
	if len(tag) <= maxTag {
		return tag
	}
	// A folder may have a longer name (255 bytes on most systems): its
	// beginning stays readable, a hash keeps it apart from others like it.
	h := fnv.New64a()
	_, _ = io.WriteString(h, tag) // a hash does not fail
	sum := fmt.Sprintf("~%016x", h.Sum64())
	return tag[:maxTag-len(sum)] + sum
}

// countFiles is the other side of the comparison: lines and bytes taken from
// the files by counting newlines, in code that has nothing in common with the
// way the messages are cut.
func countFiles(ctx context.Context, files []file) (counts, error) {
	c := counts{}
	buf := make([]byte, 64<<10)
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := countFile(f.path, buf)
		if err != nil {
			return nil, err
		}
		c[f.tag] = c[f.tag].plus(n)
	}
	return c, nil
}

// countFile counts the lines of a file and their bytes. The newline that ends a
// line is not counted; a last line need not have one.
func countFile(path string, buf []byte) (tally, error) {
	f, err := os.Open(path)
	if err != nil {
		return tally{}, err
	}
	defer func() { _ = f.Close() }() // it is only read
	var size, newlines int64
	last := byte('\n')
	for {
		n, err := f.Read(buf)
		if n > 0 {
			size += int64(n)
			newlines += int64(bytes.Count(buf[:n], []byte{'\n'}))
			last = buf[n-1]
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return tally{}, err
		}
	}
	t := tally{Lines: newlines, Bytes: size - newlines}
	if last != '\n' {
		t.Lines++
	}
	return t, nil
}
