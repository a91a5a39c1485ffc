//go:build amd64 || arm64 || riscv64 || loong64

package vfs

import "syscall"

// fadviseDontNeed is posix_fadvise(fd, off, n, POSIX_FADV_DONTNEED). Only 64-bit
// systems are served: elsewhere the arguments are split over registers in ways
// that differ by architecture, for what is only a hint.
func fadviseDontNeed(fd int, off, n int64) error {
	const dontNeed = 4
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, uintptr(fd), uintptr(off), uintptr(n), dontNeed, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
