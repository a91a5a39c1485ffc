package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// step is the first word of a line in the pipe; the numbers of the messages
// follow.
type step string

const (
	openedStep    step = "opened"    // 1 if the store had been closed, records replayed
	sentStep      step = "sent"      // Send has returned
	deliveredStep step = "delivered" // Poll has returned
	committedStep step = "committed" // Commit has returned
)

func appendLine(buf []byte, s step, numbers []uint64) []byte {
	buf = append(buf, s...)
	for _, n := range numbers {
		buf = strconv.AppendUint(append(buf, ' '), n, 10)
	}
	return append(buf, '\n')
}

// ledger is what the outside world was told, over all children.
type ledger struct {
	sent      map[uint64]bool
	delivered map[uint64]bool
	committed map[uint64]bool
	twice     []uint64 // delivered after they were committed

	// Of the child that runs.
	opened                   bool
	clean                    bool
	replayed                 uint64
	sends, commits, repeated int
}

func newLedger() *ledger {
	return &ledger{sent: map[uint64]bool{}, delivered: map[uint64]bool{}, committed: map[uint64]bool{}}
}

// startChild runs one child to its end and enters what it reports.
func startChild(ctx context.Context, dir string, round int, life time.Duration, l *ledger) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.CommandContext(ctx, self,
		childFlag, "-dir", dir, "-round", strconv.Itoa(round), "-life", life.String())
	var complaint strings.Builder
	child.Stderr = &complaint
	pipe, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	readErr := l.enterAll(pipe)
	endErr := child.Wait()
	switch killed := endErr != nil && complaint.Len() == 0; {
	case ctx.Err() != nil:
		return ctx.Err()
	case readErr != nil:
		return readErr
	case life > 0 && !killed || life == 0 && endErr != nil:
		return fmt.Errorf("child %d did not end as it should: %v: %s", round, endErr, complaint.String())
	}
	return nil
}

// enterAll reads the pipe until the child is dead and its end closed.
func (l *ledger) enterAll(pipe io.Reader) error {
	l.opened, l.clean, l.replayed = false, false, 0
	l.sends, l.commits, l.repeated = 0, 0, 0
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil // line is torn by the kill: it was never said
		}
		if err != nil {
			return err
		}
		if err := l.enter(line); err != nil {
			return err
		}
	}
}

func (l *ledger) enter(line string) error {
	words := strings.Fields(line)
	if len(words) == 0 {
		return errors.New("empty line in the pipe")
	}
	numbers := make([]uint64, len(words)-1)
	for i := range numbers {
		n, err := strconv.ParseUint(words[i+1], 10, 64)
		if err != nil {
			return fmt.Errorf("line %.40q: %w", line, err)
		}
		numbers[i] = n
	}
	switch s := step(words[0]); {
	case s == openedStep && len(numbers) == 2:
		l.opened, l.clean, l.replayed = true, numbers[0] == 1, numbers[1]
	case s == sentStep:
		for _, n := range numbers {
			l.sent[n] = true
		}
		l.sends += len(numbers)
	case s == deliveredStep:
		l.deliver(numbers)
	case s == committedStep:
		for _, n := range numbers {
			l.committed[n] = true
		}
		l.commits += len(numbers)
	default:
		return fmt.Errorf("line %.40q is none of ours", line)
	}
	return nil
}

func (l *ledger) deliver(numbers []uint64) {
	for _, n := range numbers {
		if l.committed[n] {
			l.twice = append(l.twice, n)
		}
		if l.delivered[n] {
			l.repeated++ // its commit was in doubt: that is allowed
		}
		l.delivered[n] = true
	}
}

func (l *ledger) summary(round int, life time.Duration) string {
	end := "read what was left and closed"
	if life > 0 {
		end = fmt.Sprintf("killed after %v", life.Round(time.Millisecond))
	}
	begin := "died before the store was open"
	switch {
	case l.opened && round == 0:
		begin = "made the store"
	case l.opened && l.clean:
		begin = "found it closed"
	case l.opened:
		begin = fmt.Sprintf("replayed %d", l.replayed)
	}
	return fmt.Sprintf("  child %2d  %-30s  sent %6d  committed %6d  in doubt and delivered again %3d  %s",
		round, begin, l.sends, l.commits, l.repeated, end)
}

// verdict says what was lost and what came twice. A message that was delivered
// and whose commit is in doubt is neither: it may have been committed by the
// call that was killed.
func (l *ledger) verdict() error {
	var lost []uint64
	for n := range l.sent {
		if !l.delivered[n] {
			lost = append(lost, n)
		}
	}
	var wrong []error
	if len(lost) > 0 {
		wrong = append(wrong, fmt.Errorf("%d messages were sent and acknowledged, but lost: %v", len(lost), lost[:min(len(lost), 10)]))
	}
	if n := len(l.twice); n > 0 {
		wrong = append(wrong, fmt.Errorf("%d messages were committed, but delivered again: %v", n, l.twice[:min(n, 10)]))
	}
	if len(l.sent) == 0 || len(l.committed) == 0 {
		wrong = append(wrong, errors.New("nothing was sent and committed before the kills: nothing is shown"))
	}
	return errors.Join(wrong...)
}
