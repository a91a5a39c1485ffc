package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pocketmq/mq/verify/lab"
)

func tools() []lab.Tool {
	var all []lab.Tool
	for _, r := range rivals {
		all = append(all,
			lab.Tool{Name: r.name + "-kill", About: "kill -9 of " + r.promise, Run: r.tool(false)},
			lab.Tool{Name: r.name + "-ext4", About: "power cuts below " + r.promise, Run: r.tool(true)})
	}
	return all
}

const (
	fullRuns   = 10
	quickRuns  = 1
	imageBytes = 1 << 30

	// A rival works for so long before the fault.
	leastWork, mostWork = 200 * time.Millisecond, 700 * time.Millisecond
)

// tally is what was told in one run, and what was found after it.
type tally struct {
	sent, acked, have map[string]bool
	opened, refused   bool
	again             int
	looking           bool
}

func (t *tally) hear(line string) {
	what, id, _ := strings.Cut(line, " ")
	switch what {
	case "opened":
		t.opened = true
	case "refused":
		t.refused = true
	case "sent":
		t.sent[id] = true
	case "acked":
		t.acked[id] = true
	case "have":
		t.have[id] = true
	case "got":
		if t.looking && t.acked[id] {
			t.again++
		}
	}
}

func (r rival) tool(cut bool) func(context.Context, *lab.Env) ([]lab.Row, error) {
	return func(ctx context.Context, e *lab.Env) ([]lab.Row, error) {
		row := lab.Row{Tool: r.name + map[bool]string{false: "-kill", true: "-ext4"}[cut], Rival: true, Note: r.promise}
		if why := lab.CanMount("ext4"); cut && why != "" {
			return lab.Skip(row.Tool, "%s", why), nil
		}
		rnd := rand.New(rand.NewPCG(e.Seed, 7)) //nolint:gosec // not for secrets
		for n := range e.Count(fullRuns, quickRuns) {
			dir := filepath.Join(e.Dir, fmt.Sprint(n))
			if err := os.Mkdir(dir, 0o700); err != nil {
				return []lab.Row{row}, err
			}
			work := leastWork + time.Duration(rnd.Int64N(int64(mostWork-leastWork)))
			t, err := r.once(ctx, dir, cut, work)
			if err != nil {
				return []lab.Row{row}, err
			}
			row.Runs++
			row.Acknowledged += int64(len(t.sent))
			for id := range t.sent {
				if !t.have[id] {
					row.Lost++
				}
			}
			row.Again += int64(t.again)
			if t.refused || !t.opened {
				row.Refused++
			}
			e.Say("%4d runs, %d acknowledged, %d lost, %d delivered again", row.Runs, row.Acknowledged, row.Lost, row.Again)
		}
		return []lab.Row{row}, nil
	}
}

// once lets a rival work on an empty store, kills it or cuts its power, and looks
// at what is there. Before a cut it is stopped, so that it is judged by what it
// said while it had power.
func (r rival) once(ctx context.Context, dir string, cut bool, work time.Duration) (t *tally, err error) {
	t = &tally{sent: map[string]bool{}, acked: map[string]bool{}, have: map[string]bool{}}
	store := filepath.Join(dir, "store")
	var disk *lab.Disk
	if cut {
		if disk, err = lab.NewDisk(ctx, dir, "ext4", imageBytes); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, disk.Close(), os.RemoveAll(dir)) }()
		store = filepath.Join(disk.Point, "store")
	}
	err = runChild(ctx, order{Rival: r.name, Dir: store}, t, func(cmd *exec.Cmd) error {
		select {
		case <-time.After(work):
		case <-ctx.Done():
			return ctx.Err()
		}
		if cut {
			return errors.Join(cmd.Process.Signal(syscall.SIGSTOP), disk.Cut())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if cut {
		if err := disk.Remount(ctx); err != nil {
			return nil, err
		}
	}
	t.looking, t.opened, t.refused = true, false, false
	return t, runChild(ctx, order{Rival: r.name, Dir: store, Look: true}, t, nil)
}

// runChild runs a process, does something to it once it is open, kills it after
// that, and enters what it said.
func runChild(ctx context.Context, o order, t *tally, fault func(*exec.Cmd) error) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.ExtraFiles = []*os.File{write}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return err
	}
	opened, heard := make(chan struct{}), make(chan struct{})
	go func() {
		lines := bufio.NewReader(read)
		for told := false; ; {
			line, err := lines.ReadString('\n')
			if !told && (err != nil || strings.HasPrefix(line, "opened") || strings.HasPrefix(line, "refused")) {
				told = true
				close(opened)
			}
			if err != nil {
				close(heard)
				return
			}
			t.hear(strings.TrimSuffix(line, "\n"))
		}
	}()
	<-opened
	var faultErr error
	if fault != nil {
		faultErr = fault(cmd)
		_ = cmd.Process.Kill() // it may have ended by itself
	}
	<-heard
	if err := cmd.Wait(); fault == nil && err != nil && ctx.Err() == nil {
		t.refused = true
		fmt.Fprintf(os.Stderr, "%s ended with %v: %.500s\n", o.Rival, err, complaint.String())
	}
	return errors.Join(ctx.Err(), faultErr)
}
