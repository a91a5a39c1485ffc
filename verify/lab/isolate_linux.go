package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

const isolatedVariable = "POCKETMQ_VERIFY_ISOLATED"

// isolate starts the program again in a mount namespace of its own, if it may,
// and ends this one with it. What the tools mount is seen by nobody else, and
// goes with the last process of the namespace, however that ends; a loop device
// attached by mount goes with its mount.
func isolate(ctx context.Context) {
	if os.Getenv(isolatedVariable) != "" || os.Geteuid() != 0 {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread() // the death of this thread would be taken for the parent's
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "lab: no mount namespace of its own:", err)
		return // tools that mount will skip themselves
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		os.Exit(exit.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	os.Exit(1)
}

// Isolated reports whether what is mounted stays within this program.
func Isolated() bool { return os.Getenv(isolatedVariable) != "" }
