package vfs

import (
	"math"
	"os"
	"syscall"
	"unsafe"
)

var getDiskFreeSpaceEx = syscall.NewLazyDLL("kernel32.dll").NewProc("GetDiskFreeSpaceExW")

func freeBytes(dir string) (int64, error) {
	name, err := syscall.UTF16PtrFromString(dir)
	if err != nil {
		return 0, &os.PathError{Op: "free", Path: dir, Err: err}
	}
	var free uint64 // to the caller, quotas counted
	ok, _, err := getDiskFreeSpaceEx.Call(uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&free)), 0, 0)
	if ok == 0 {
		return 0, &os.PathError{Op: "free", Path: dir, Err: err}
	}
	return int64(min(free, math.MaxInt64)), nil
}
