package vfs

import (
	"math"
	"os"
	"syscall"
)

func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := retry(func() error { return syscall.Statfs(dir, &st) }); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	unit := uint64(st.Frsize) // what blocks are counted in; 0 on old file systems
	if unit == 0 {
		unit = uint64(st.Bsize)
	}
	if unit == 0 || st.Blocks == 0 || st.Bavail > math.MaxInt64/unit {
		return math.MaxInt64, nil // without bounds, or it does not say
	}
	return int64(st.Bavail * unit), nil
}
