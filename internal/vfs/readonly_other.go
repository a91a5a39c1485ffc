//go:build !linux

package vfs

import "os"

// openReading opens a file for reading.
func openReading(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, err
	}
	return newOSFile(f)
}
