// Package verify is the fault lab: programs that break what a store stands on
// (power, processes, system calls, disks, bytes) and check that what was
// acknowledged is still there. It is a module of its own, so that what it needs
// does not become a requirement of PocketMQ.
package verify
