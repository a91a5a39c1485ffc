//go:build !linux

package workload

import (
	"errors"
	"os"
	"os/exec"
	"sync"
)

func tether(*exec.Cmd) {}

// Stop is for Linux.
func (p *Process) Stop() error { return errors.ErrUnsupported }

// Continue is for Linux.
func (p *Process) Continue() error { return errors.ErrUnsupported }

func killGroup(cmd *exec.Cmd) error { return cmd.Process.Kill() }

type logWriter struct {
	mu   sync.Mutex // a line is not torn by another
	file *os.File
}

func (w *logWriter) WriteString(lines string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.file.WriteString(lines); err != nil {
		os.Exit(0) // nobody listens any more
	}
}
