// Package verify is the fault lab: programs that break what a store stands on
// (power, processes, system calls, disks, bytes) and check that what was
// acknowledged is still there. It is a module of its own, so that what it needs
// does not become a requirement of PocketMQ.
//
//	workload   the process that is broken, and the ledger that makes a history of
//	           what it says and of what the store says after the fault
//	linear     a second opinion on histories, by porcupine
//	lab        runs tools and prints their rows as one table
//	kill       SIGKILL
//	cut        power cuts on ext4 and XFS
//	syscalls   system calls that fail, or are the last (strace)
//	disk       a full disk; files cut and removed by somebody else
//	beside     tests beside the engine as tools: the crash file system, mutilation, soak
//	soak       ten minutes of everything at once under the race detector
//	rivals     other stores, in a module of their own
//	cmd/lab    all of it: go run ./verify/cmd/lab -list
//
// Mutilation (TestMutilate beside the engine, make mutilate) is judged in the same
// way: how a small store was made is a history, and each wound continues it with
// the messages and acknowledgements whose bytes were hit, and with what groups are
// handed after opening, or after Repair. What a history has no words for (that the
// store opens, that damage is reported with its place, what Repair leaves) is
// demanded beside it.
//
// What clients saw is judged by internal/history, in the error classes of
// jepsen.tests.kafka; the tests beside the engine use it too.
//
// A tool is a lab.Tool; a line in cmd/lab makes it a row of the table that
// docs/durability.md shows.
package verify
