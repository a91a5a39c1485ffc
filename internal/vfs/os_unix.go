//go:build unix

package vfs

import (
	"errors"
	"os"
	"syscall"
)

// noFollow refuses a symbolic link as the last element of a name: in a folder
// that somebody else can write to it would lead our writes elsewhere.
const noFollow = syscall.O_NOFOLLOW

// unlinked tells whether a file has no name left. (A handler between us and the
// file system may not know; then it has one.)
func unlinked(info os.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && s.Nlink == 0
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
