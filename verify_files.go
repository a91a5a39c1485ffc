package mq

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/journal"
	"github.com/pocketmq/mq/internal/keyindex"
)

// What a verifier says of the files beside the log: the checkpoint, and those that
// it names.

// readCheckpoint folds the newest checkpoint, if it is of any use.
func (v *verifier) readCheckpoint() error {
	if err := v.progress("checkpoints", 0, 0); err != nil {
		return err
	}
	found, err := journal.Examine(v.fs, v.path("journal"))
	switch {
	case errors.Is(err, journal.ErrVersion):
		return fmt.Errorf("%w: %w", ErrVersion, err)
	case errors.Is(err, fs.ErrNotExist):
		if entries, _ := v.fs.List(v.path("commitlog")); len(entries) > 0 {
			v.problem(Problem{Kind: DamagedJournal, File: v.path("journal"), Detail: "missing"})
		}
		return nil
	case err != nil:
		v.problem(Problem{Kind: Unreadable, File: v.path("journal"), Detail: err.Error()})
		return nil
	}
	for _, f := range found.Flaws {
		kind := Leftover
		if f.Damage {
			kind = DamagedJournal
		}
		v.problem(Problem{Kind: kind, File: f.File, Offset: f.Offset, Detail: f.Err.Error()})
	}
	for _, name := range found.Foreign {
		v.problem(Problem{Kind: UnknownFile, File: name})
	}
	if found.Last == nil {
		return nil
	}
	v.checkpoint = found.Last
	err = v.foldCheckpoint(found.Last.Body)
	store, segments, probeErr := commitlog.Probe(v.fs, v.path("commitlog"))
	if errors.Is(probeErr, ErrVersion) {
		return probeErr
	}
	if err == nil && store != 0 && segments > 0 && store != v.head.store {
		err = fmt.Errorf("it is of store %016x, the log of %016x", v.head.store, store)
	}
	if err != nil {
		v.problem(Problem{Kind: DamagedJournal, File: v.path("journal"), Detail: "the checkpoint cannot be used: " + err.Error()})
		v.checkpoint, v.head = nil, itemHead{}
		clear(v.queues)
		return v.clear()
	}
	v.checkpoint = &journal.Checkpoint{Clean: found.Last.Clean} // the body is folded
	v.sizeBuffers()
	return nil
}

func (v *verifier) foldCheckpoint(body []byte) error {
	first := true
	err := eachItem(body, func(payload []byte, at coord.Position) (err error) {
		if first != (payload[0] == itemHeader) {
			return errCheckpoint
		}
		first = false
		switch payload[0] {
		case itemHeader:
			v.head, err = decodeItemHeader(payload)
			return err
		case itemQueue:
			id, q, st, err := decodeItemQueue(payload)
			t := v.b.state.topics[id]
			if err != nil || t == nil || st.Min < 0 || st.Flushed < st.Min {
				return errCheckpoint
			}
			v.b.state.grow(t, int(q)+1)
			v.queues[queueKey{id, q}] = &queueCheck{name: t.name, known: true, state: st, next: st.Min}
			return nil
		case itemWaiting:
			var w waitingState
			return w.decode(payload)
		case itemWindow:
			return v.b.restoreWindow(payload)
		}
		return v.b.restoreRecord(payload, at)
	})
	if err == nil && first {
		err = errCheckpoint // empty
	}
	return err
}

// checkFiles looks at everything beside the log.
func (v *verifier) checkFiles(found *commitlog.Examination) error {
	if err := v.progress("indexes", 0, 0); err != nil {
		return err
	}
	if err := v.checkQueueFiles(); err != nil {
		return err
	}
	if err := v.checkKeyFiles("index", v.head.keysFrom, v.head.keysTo, found.Start); err != nil {
		return err
	}
	if err := v.checkKeyFiles("timer", v.head.timerFrom, v.head.timerTo, found.Start); err != nil {
		return err
	}
	known := []string{"LOCK", reserveName, "commitlog", "consumequeue", "index", "timer", "journal"}
	entries, err := v.fs.List(v.dir)
	if err != nil {
		return fmt.Errorf("mq: verify: %w", err)
	}
	for _, e := range entries {
		switch {
		case e.Name == repairName:
			v.problem(Problem{Kind: Leftover, File: v.path(e.Name), Detail: "a repair into this directory was interrupted"})
		case !slices.Contains(known, e.Name):
			v.problem(Problem{Kind: UnknownFile, File: v.path(e.Name)})
		}
	}
	v.report.Owner = v.owner()
	return nil
}

// owner is the process that LOCK names.
func (v *verifier) owner() int {
	f, err := v.fs.Open(v.path("LOCK"))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // only read
	var b [24]byte
	n, _ := f.ReadAt(b[:], 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// checkKeyFiles reads the files of keys, or of the times that delayed messages
// wait for, and looks for those that are missing: from where to where the
// checkpoint says there are some.
func (v *verifier) checkKeyFiles(folder string, from, to, start coord.Position) error {
	next := max(from, start)
	gap := func(end coord.Position) {
		if next < end && end <= to {
			v.problem(Problem{Kind: DamagedKeyFile, File: v.path(folder), Detail: fmt.Sprintf("no file from %d to %d", next, end)})
		}
	}
	err := keyindex.Examine(v.fs, v.path(folder), func(x keyindex.Examined) error {
		switch {
		case x.Foreign:
			v.problem(Problem{Kind: UnknownFile, File: x.File})
		case x.Partial:
			v.problem(Problem{Kind: Leftover, File: x.File, Detail: "not completed"})
		default:
			v.report.KeyFiles++
			if x.Err != nil {
				v.problem(Problem{Kind: DamagedKeyFile, File: x.File, Offset: x.Offset, Detail: x.Err.Error()})
			}
			if x.From > next {
				gap(min(x.From, to))
			}
			next = max(next, x.To)
		}
		return v.ctx.Err()
	})
	if err != nil {
		return err
	}
	gap(to)
	return nil
}

// repairName is a file that is in a store as long as Repair writes it.
const repairName = "REPAIR"
