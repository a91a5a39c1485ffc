package workload

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
	"unsafe"
)

// tether keeps a killed lab from leaving processes behind, and puts the process
// and its wrapper in a group that can be killed at once.
func tether(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd) }
}

func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// logWriter writes the log with writev, a call that neither the store nor the Go
// runtime makes: a tool that breaks every write breaks the store's and not the
// witness's.
type logWriter struct {
	mu   sync.Mutex // a line is not torn by another
	file *os.File
}

func (w *logWriter) WriteString(lines string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := []byte(lines)
	for len(b) > 0 {
		v := syscall.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		n, _, err := syscall.Syscall(syscall.SYS_WRITEV, w.file.Fd(), uintptr(unsafe.Pointer(&v)), 1)
		switch err {
		case 0:
			b = b[n:]
		case syscall.EINTR, syscall.EAGAIN:
		default:
			os.Exit(0) // nobody listens any more
		}
	}
}
