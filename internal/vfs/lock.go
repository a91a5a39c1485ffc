package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
)

// Lock is a file that one process at a time holds. The system lets go of it
// when the process ends, however it ends.
type Lock struct {
	once sync.Once
	file *os.File
}

// LockedError says that somebody holds a lock file already.
type LockedError struct {
	Path string
	PID  int // of the holder; 0 if it did not get to write it, or on another system
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("vfs: %s is locked", e.Path)
	}
	return fmt.Sprintf("vfs: %s is locked by process %d", e.Path, e.PID)
}

// LockFile creates the file at path if it is missing, locks it and writes the
// id of this process into it. It does not wait: a lock that is held, also by
// this very process, is a *LockedError.
func LockFile(path string) (*Lock, error) {
	f, held, err := openLocked(path)
	if held {
		return nil, &LockedError{Path: path, PID: readPID(path)}
	}
	if err != nil {
		return nil, fmt.Errorf("vfs: lock %s: %w", path, err)
	}
	// The id is for people to read; the lock holds without it. So a full disk is
	// no reason to fail: a full store must open, or it could not be drained.
	pid := strconv.AppendInt(nil, int64(os.Getpid()), 10)
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(append(pid, '\n'), 0)
	}
	return &Lock{file: f}, nil
}

// Unlock lets go of the lock. The file stays: removing it would let two
// processes lock two files of one name. It is idempotent.
func (l *Lock) Unlock() error {
	var err error
	l.once.Do(func() {
		_ = l.file.Truncate(0) // the id that is in it means nothing from now on
		err = errors.Join(unlock(l.file), l.file.Close())
	})
	return err
}

// readPID returns what the holder of a lock wrote into it, 0 if nothing usable.
func readPID(path string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	var buf [24]byte
	n, _ := f.Read(buf[:])
	pid, err := strconv.Atoi(string(bytes.TrimSpace(buf[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}
