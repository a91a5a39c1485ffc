//go:build !linux

package lab

import (
	"context"
	"errors"
)

// Disk is a file system of its own in a file; there is none here.
type Disk struct{ Point string }

// CanMount says why nothing can be mounted here.
func CanMount(string) string { return "needs Linux" }

// NewDisk fails.
func NewDisk(context.Context, string, string, int64) (*Disk, error) {
	return nil, errors.ErrUnsupported
}

// NewTmpfs fails.
func NewTmpfs(context.Context, string, int64) (*Disk, error) { return nil, errors.ErrUnsupported }

// Cut fails.
func (*Disk) Cut() error { return errors.ErrUnsupported }

// Unmount fails.
func (*Disk) Unmount() error { return errors.ErrUnsupported }

// Remount fails.
func (*Disk) Remount(context.Context) error { return errors.ErrUnsupported }

// Close does nothing.
func (*Disk) Close() error { return nil }
