package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	configVariable = "POCKETMQ_VERIFY_WORKLOAD"
	logDescriptor  = 3
)

// Main makes this process the workload, if it was started to be it, and does
// not return then.
func Main() {
	text := os.Getenv(configVariable)
	if text == "" {
		return
	}
	var c Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(exitBadly)
	}
	w := &worker{Config: c, out: &logWriter{file: os.NewFile(logDescriptor, "log")}}
	w.live()
	os.Exit(0)
}

const exitBadly = 3

// Process is a running workload.
type Process struct {
	cmd       *exec.Cmd
	ledger    *Ledger
	complaint complaint
	opened    chan struct{}
	heard     chan error // of the log, when it ended
	log       *os.File
}

// Start starts the program again as the workload, below a wrapper such as strace
// if there is one, and enters what it says in the ledger until Wait has
// returned. ctx ends it.
func Start(ctx context.Context, c Config, l *Ledger, wrapper ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	args := append(wrapper, self)
	p := &Process{ledger: l, opened: make(chan struct{}), heard: make(chan error, 1), log: read}
	p.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	p.cmd.Env = append(os.Environ(), configVariable+"="+string(text))
	p.cmd.ExtraFiles = []*os.File{write} // descriptor 3
	p.cmd.Stderr = &p.complaint
	p.cmd.WaitDelay = time.Minute
	tether(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, read.Close())
	}
	l.begin(c)
	go p.runEars(l, read)
	return p, nil
}

// runEars reads the log; Wait waits for it.
func (p *Process) runEars(l *Ledger, log *os.File) {
	var once sync.Once
	err := l.hearAll(log, func() { once.Do(func() { close(p.opened) }) })
	once.Do(func() { close(p.opened) })
	p.heard <- errors.Join(err, log.Close())
}

// Opened is closed when the process has opened its store, or ended.
func (p *Process) Opened() <-chan struct{} { return p.opened }

// Heard is closed when the process, from now on, says something that contains
// the text.
func (p *Process) Heard(text string) <-chan struct{} { return p.ledger.listen(text) }

// Kill ends the process, and its wrapper, at once.
func (p *Process) Kill() error { return killGroup(p.cmd) }

// Wait waits for the end of the process and of its log.
func (p *Process) Wait() (End, error) {
	heard := <-p.heard
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return End{}, errors.Join(err, heard)
	}
	return End{State: p.cmd.ProcessState, Complaint: p.complaint.String()}, heard
}

// End is how a process ended.
type End struct {
	State     *os.ProcessState
	Complaint string // what it wrote to its standard error
}

// Crashed reports whether the Go runtime ended the process: a panic, a fault, a
// fatal error.
func (e End) Crashed() bool {
	return e.State.ExitCode() == 2 || strings.Contains(e.Complaint, "goroutine ") ||
		strings.Contains(e.Complaint, "fatal error:")
}

// complaint keeps the beginning of what is written to it.
type complaint struct {
	mu sync.Mutex // protects b
	b  bytes.Buffer
}

func (c *complaint) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.b.Write(b[:min(len(b), max(0, 64<<10-c.b.Len()))])
	return len(b), nil
}

func (c *complaint) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}
