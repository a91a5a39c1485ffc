//go:build !linux

package vfs

import (
	"errors"
	"fmt"
)

func syncFile(f *osFile) error { return f.File.Sync() }

func allocate(f *osFile, from, to int64) error { return writeZeros(f, from, to) }

func forget(f *osFile, off, n int64) error { return nil }

// mapFile leaves mapping to Linux, where what it does to durability was
// measured; the engine serves the same segments through Unmapped.
func mapFile(f *osFile, size int64) (Mapping, error) {
	return nil, fmt.Errorf("vfs: map %s: %w", f.Name(), errors.ErrUnsupported)
}
