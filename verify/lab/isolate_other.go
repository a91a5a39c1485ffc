//go:build !linux

package lab

import "context"

func isolate(context.Context) {}

// Isolated reports whether what is mounted stays within this program.
func Isolated() bool { return false }
