//go:build linux && !(amd64 || arm64 || riscv64 || loong64)

package vfs

// fadviseDontNeed does nothing: Forget is a hint.
func fadviseDontNeed(fd int, off, n int64) error { return nil }
