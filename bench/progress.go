package main

import (
	"fmt"
	"os"
	"strings"
)

// progress is the line on stderr that says what is being measured: rewritten
// in place on a terminal, one line each elsewhere. The zero value is silent.
type progress struct {
	figure string

	out      *os.File
	terminal bool
	width    int // of the line that stands there now
}

func newProgress(out *os.File) *progress {
	info, err := out.Stat()
	return &progress{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (p *progress) show(format string, args ...any) {
	if p.out == nil {
		return
	}
	line := p.figure + ": " + fmt.Sprintf(format, args...)
	if !p.terminal {
		fmt.Fprintln(p.out, line)
		return
	}
	p.clear()
	p.width = len(line)
	fmt.Fprintf(p.out, "%s", line)
}

func (p *progress) clear() {
	if p.width > 0 {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
}
