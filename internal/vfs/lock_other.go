//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package vfs

import (
	"errors"
	"os"
)

// openLocked fails: without a lock two processes would ruin one store. Memory
// brokers need none.
func openLocked(path string) (f *os.File, held bool, err error) {
	return nil, false, errors.ErrUnsupported
}

func unlock(*os.File) error { return errors.ErrUnsupported }
