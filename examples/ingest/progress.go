package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// bar is a progress bar on a terminal, and nothing elsewhere. A nil bar shows
// nothing.
type bar struct {
	out *os.File

	mu   sync.Mutex // guards last
	last time.Time
}

// newBar returns nil if out is not a terminal.
func newBar(out *os.File) *bar {
	info, err := out.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &bar{out: out}
}

const (
	barWidth = 40
	barEvery = 50 * time.Millisecond // an eye sees no more than 20 pictures a second
)

// show draws the bar, if it is time to. It is safe for concurrent use.
func (b *bar) show(what string, done, all int64) {
	if b == nil || all <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.last) >= barEvery {
		b.last = now
		fmt.Fprintf(b.out, "\r%s", drawBar(what, done, all))
	}
}

// clear removes the bar.
func (b *bar) clear() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.out, "\r%s\r", strings.Repeat(" ", len(drawBar("consumed", 1, 1))))
}

func drawBar(what string, done, all int64) string {
	done = min(max(done, 0), all)
	filled := int(done * barWidth / all)
	return fmt.Sprintf("%-8s [%s%s] %3d%%", what, strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled), done*100/all)
}
