//go:build !linux && !darwin && !windows

package vfs

import (
	"errors"
	"fmt"
)

func freeBytes(dir string) (int64, error) {
	return 0, fmt.Errorf("vfs: free space of %s: %w", dir, errors.ErrUnsupported)
}
