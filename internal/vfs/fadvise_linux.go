//go:build amd64 || arm64 || riscv64 || loong64

package vfs

import "syscall"

// fadviseDontNeed is posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) for the whole
// file. Only 64-bit systems are served: elsewhere the arguments are split over
// registers in ways that differ by architecture, for what is only a hint.
func fadviseDontNeed(fd int) error {
	const dontNeed = 4
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, uintptr(fd), 0, 0, dontNeed, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
