// Package verify is the fault lab: programs that break what a store stands on
// (power, processes, system calls, disks, bytes) and check that what was
// acknowledged is still there. It is a module of its own, so that what it needs
// does not become a requirement of PocketMQ.
//
//	workload   the process that is broken, and the ledger that judges it
//	lab        runs tools and prints their rows as one table
//	kill       SIGKILL
//	cut        power cuts on ext4 and XFS
//	syscalls   system calls that fail, or are the last (strace)
//	disk       a full disk; files cut and removed by somebody else
//	rivals     other stores, in a module of their own
//	cmd/lab    all of it: go run ./verify/cmd/lab -list
//
// A tool is a lab.Tool; a line in cmd/lab makes it a row of the table that
// docs/durability.md shows.
package verify
