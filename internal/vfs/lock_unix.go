//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package vfs

import (
	"errors"
	"os"
	"syscall"
)

// openLocked opens path and takes flock on it. That lock belongs to the open
// file, not to the process, so it also keeps out a second Open in this process.
func openLocked(path string) (f *os.File, held bool, err error) {
	f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, false, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return nil, err == syscall.EWOULDBLOCK, errors.Join(err, f.Close())
	}
	return f, false, nil
}

// unlock lets go of the lock at once. Closing would do when the last copy of the
// descriptor is gone, and a child that another goroutine is just starting has
// one until it runs its own program.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
