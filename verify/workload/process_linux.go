package workload

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// tether keeps a killed lab from leaving processes behind, and puts the process
// and its wrapper in a group that can be killed at once.
func tether(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd) }
}

func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// Stop stops the process wherever it is, and marks in its log what was said
// until then: the moment of a power cut. Only what is inside the kernel goes on.
func (p *Process) Stop() error {
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for range 1000 {
		if p.stopped() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	// A pipe can be opened again by its descriptor.
	mark, err := os.OpenFile(fmt.Sprint("/proc/self/fd/", p.log.Fd()), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = mark.WriteString(cutMark)
	return errors.Join(err, mark.Close())
}

// Continue lets a stopped process go on.
func (p *Process) Continue() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) }

// stopped reports whether no thread runs the program: each is stopped, waits for
// the disk inside a system call, or is gone.
func (p *Process) stopped() bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // gone since
		}
		_, state, _ := strings.Cut(string(b), ") ")
		if !strings.ContainsAny(state[:min(1, len(state))], "TDZX") {
			return false
		}
	}
	return true
}

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
