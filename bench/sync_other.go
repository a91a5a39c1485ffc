//go:build !linux && !darwin

package main

// syncDisks does nothing where there is no call for it.
func syncDisks() {}
