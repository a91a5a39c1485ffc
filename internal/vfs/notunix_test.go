//go:build !unix

package vfs_test

const noFollowHere = false
