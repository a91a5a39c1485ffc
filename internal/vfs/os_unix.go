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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
