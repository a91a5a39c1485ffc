//go:build !unix

package vfs

import "os"

const noFollow = 0

// syncDir only tells whether the folder is there: these systems do not offer
// its sync (NTFS journals names by itself).
func syncDir(dir string) error {
	_, err := os.Stat(dir)
	return err
}

// unlinked does not know. Windows does not remove files that are open.
func unlinked(os.FileInfo) bool { return false }
