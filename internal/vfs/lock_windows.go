package vfs

import (
	"os"
	"syscall"
)

// openLocked opens path so that nobody else can open it for writing until it is
// closed, but may read who holds it.
func openLocked(path string) (f *os.File, held bool, err error) {
	// ERROR_SHARING_VIOLATION, which the syscall package does not name.
	const sharingViolation = syscall.Errno(32)

	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, false, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE,
		syscall.FILE_SHARE_READ, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, err == sharingViolation, err
	}
	return os.NewFile(uintptr(h), path), false, nil
}

// unlock has nothing to do: the handle is not inherited, closing it is enough.
func unlock(*os.File) error { return nil }
