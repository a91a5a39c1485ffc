package mq

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/journal"
	"github.com/pocketmq/mq/internal/record"
	"github.com/pocketmq/mq/internal/vfs"
)

// RepairOptions says how a store is repaired. Nil means the defaults.
type RepairOptions struct {
	// MaxProblems is how many problems and lost ranges are listed; further ones
	// are counted. Default 1,000.
	MaxProblems int

	// Progress is called every few megabytes, on the caller's goroutine. Nil
	// calls nothing.
	Progress func(Progress)

	// Logger receives what happens in the new store. Nil discards it.
	Logger *slog.Logger
}

// LostRange is offsets From <= o < To of a message queue whose messages are not
// in the repaired store.
type LostRange struct {
	Topic string  `json:"topic"`
	Queue QueueID `json:"queue"`
	From  Offset  `json:"from"`
	To    Offset  `json:"to"`

	// File and Offset say where in the damaged store the first of them was, as far
	// as its queue's entry can be read: relative to it, with slashes.
	File   string `json:"file,omitempty"`
	Offset int64  `json:"offset"`
}

// String describes the range on one line.
func (l LostRange) String() string {
	s := fmt.Sprintf("%v offsets %d to %d", Queue{l.Topic, l.Queue}, l.From, l.To-1)
	if l.File != "" {
		s += fmt.Sprintf(", %s at %d", l.File, l.Offset)
	}
	return s
}

// RepairReport is what Repair kept and what it lost.
type RepairReport struct {
	// Found is what reading the damaged store found, as Verify reports it. Its
	// counts are those of what was kept.
	Found *VerifyReport `json:"found"`

	// Lost lists the messages that are known to be lost. Damage to messages at the
	// end of a queue may leave no trace of how many there were; Found.Problems has
	// every damaged place of the log.
	Lost []LostRange `json:"lost"`
	More int64       `json:"more,omitempty"` // ranges beyond RepairOptions.MaxProblems

	// LostMessages counts the offsets of Lost and More.
	LostMessages int64 `json:"lostMessages"`

	// Renamed are topics of which only the messages are left: their names come
	// from the folders of their queues, or are LOST-<id>.
	Renamed []string `json:"renamed,omitempty"`
}

// String is the report for people.
func (r *RepairReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kept %d messages in %d topics, and %d groups; %d messages known to be lost", r.Found.Messages, r.Found.Topics, r.Found.Groups, r.LostMessages)
	for _, l := range r.Lost {
		b.WriteString("\n  lost: " + l.String())
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "\n  and %d more ranges", r.More)
	}
	for _, name := range r.Renamed {
		fmt.Fprintf(&b, "\n  topic without a name, now %s", name)
	}
	b.WriteString("\n" + r.Found.String())
	return b.String()
}

// Repair copies all that is sound of the store in dir into a new store in dst,
// and reports what was lost. dir is read as Verify reads it and never changed. dst
// must not exist, or be empty, or hold an interrupted Repair; its file system
// needs as much room as dir takes.
//
// Kept, of every message whose own bytes are whole: id, topic, queue, offset, tag,
// keys, properties, sharding key, body, and when it was born and stored. Also those
// that Open would drop behind a torn tail, and those in a batch of which another
// part is damaged: all or nothing does not hold for a batch that was damaged.
// Offsets of lost messages are not given to others: they are holes, which
// consumers skip and Hooks.Missed tells of; lost ones at the start of a queue make
// it start later. Topics keep their settings, groups their progress, starts and
// broadcasting members, as far as the last checkpoint or the log knows them. So
// the new store takes the place of the old one: programs that noted ids or offsets
// go on with them. Never use both.
//
// Not kept: messages whose bytes are damaged; acknowledgements that only a damaged
// place knew, so that these messages come again; that a topic or group was deleted,
// if both the checkpoint and the record of it are lost; names of topics that only
// damaged places knew (RepairReport.Renamed).
//
// The new store is closed and synced when Repair returns. After an error, or when
// the process ends before, dst holds a file REPAIR and Open refuses it
// (ErrDirectory); Repair into it again begins anew.
//
// Errors: ErrNoStore, ErrVersion, ErrDirectory (dst), ErrLocked (dst), ErrDiskFull,
// ErrCorrupt where nothing at all is sound, ErrInvalidOptions, that of ctx.
func Repair(ctx context.Context, dir, dst string, options *RepairOptions) (*RepairReport, error) {
	return repair(ctx, vfs.OS(), dir, dst, options)
}

// repair lets tests put another file system behind both.
func repair(ctx context.Context, fsys vfs.FS, dir, dst string, options *RepairOptions) (*RepairReport, error) {
	r, err := newRepairer(ctx, fsys, dir, dst, options)
	if err != nil {
		return nil, err
	}
	if err := r.own(); err != nil {
		return nil, err
	}
	if err := r.run(); err != nil {
		return nil, errors.Join(err, r.to.release())
	}
	return r.report, nil
}

func newRepairer(ctx context.Context, fsys vfs.FS, dir, dst string, options *RepairOptions) (*repairer, error) {
	var o RepairOptions
	if options != nil {
		o = *options
	}
	v, err := newVerifier(ctx, fsys, dir, &VerifyOptions{MaxProblems: o.MaxProblems, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	opts := (&Options{Logger: o.Logger, Retention: Retention{Age: -1, GroupExpiry: -1}}).withDefaults(false)
	r := &repairer{verifier: v, to: newBroker(opts, fsys, dst), report: &RepairReport{Found: v.report, Lost: []LostRange{}}}
	r.to.journalFS = fsys
	r.to.timer.resting = true // what has become due is delivered by who opens the store
	return r, nil
}

// repairer is one run of Repair.
type repairer struct {
	*verifier
	to     *Broker // on dst
	report *RepairReport
	ends   map[queueKey]Offset // that the checkpoint knows
}

// own takes dst, if it is free.
func (r *repairer) own() error {
	from, err1 := filepath.Abs(r.dir)
	to, err2 := filepath.Abs(r.to.dir)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	if within := to + string(filepath.Separator); r.to.dir == "" || strings.HasPrefix(within, from+string(filepath.Separator)) {
		return fmt.Errorf("%w: %q is, or lies in, the store to repair", ErrDirectory, r.to.dir)
	}
	entries, err := r.to.fs.List(r.to.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	// A repair that was interrupted at once has left a lock file and nothing else.
	interrupted := func(e vfs.Entry) bool { return e.Name == repairName || e.Name == "LOCK" && len(entries) == 1 }
	if len(entries) > 0 && !slices.ContainsFunc(entries, interrupted) {
		return fmt.Errorf("%w: %q is not empty", ErrDirectory, r.to.dir)
	}
	if r.to.fs != vfs.OS() {
		return r.begin()
	}
	if err := r.to.own(); err != nil {
		return err
	}
	if err := r.begin(); err != nil {
		return errors.Join(err, r.to.release())
	}
	return nil
}

// begin marks dst as unfinished, durably, and removes what an earlier repair
// left.
func (r *repairer) begin() error {
	b := r.to
	if err := b.fs.MkdirAll(b.dir); err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	f, err := b.fs.Create(b.path(repairName), 0)
	switch {
	case err == nil:
		err = errors.Join(f.Sync(), f.Close())
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	err = errors.Join(err, b.fs.SyncDir(b.dir))
	for _, name := range []string{"commitlog", "consumequeue", "index", "timer", "journal"} {
		err = errors.Join(err, b.fs.RemoveAll(b.path(name)))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	return nil
}

// unfinished refuses a directory in which a repair was interrupted.
func (b *Broker) unfinished() error {
	if _, err := os.Lstat(b.path(repairName)); err == nil {
		return fmt.Errorf("%w: a repair into %q was interrupted; do it again", ErrDirectory, b.dir)
	}
	return nil
}

// run copies the log, folds it, and has the new store write down what the log
// alone does not say.
func (r *repairer) run() error {
	if err := r.readCheckpoint(); err != nil {
		return err
	}
	r.ends = map[queueKey]Offset{}
	for key, q := range r.queues {
		r.ends[key] = q.state.End
	}
	x := r.examiner()
	target := commitlog.Target{FS: r.to.fs, Dir: r.to.path("commitlog"), Fill: record.PutFiller}
	found, err := commitlog.Salvage(r.logOptions(), r.logStart(), x, target)
	if errors.Is(err, commitlog.ErrNotFound) {
		return fmt.Errorf("%w: repair: %w", ErrCorrupt, err)
	}
	if err := r.logRead(found, err); err != nil {
		return err
	}
	if err := r.progress("folding", 0, found.Bytes); err != nil {
		return err
	}
	topics := r.nameTopics()
	r.listLost()
	if err := r.fold(found.End, topics); err != nil {
		return err
	}
	r.verifier.report.Topics, r.verifier.report.Groups = len(r.to.state.topics), len(r.to.state.groups)
	if err := r.writeDown(); err != nil {
		return err
	}
	return r.finish()
}

// nameTopics returns records for the topics of which only messages are left.
func (r *repairer) nameTopics() []record.Topic {
	names := map[coord.TopicID]string{}
	entries, _ := r.fs.List(r.verifier.path("consumequeue"))
	for _, e := range entries {
		at := strings.LastIndexByte(e.Name, '@')
		if id := (coord.TopicID)(0); at > 0 {
			if _, err := fmt.Sscanf(e.Name[at+1:], "%d", &id); err == nil && validateTopic(e.Name[:at]) == nil {
				names[id] = e.Name[:at] // not one with escapes, or cut
			}
		}
	}
	var topics []record.Topic
	for id, u := range r.unknown {
		name := names[id]
		if name == "" || strings.Contains(name, "%") || r.b.names.topic(name) != nil {
			name = fmt.Sprintf("LOST-%d", id)
		}
		topics = append(topics, record.Topic{ID: id, Name: name, Queues: int(u.queues) + 1, Synced: true})
		r.report.Renamed = append(r.report.Renamed, name)
		r.verifier.report.Messages += u.messages
	}
	slices.Sort(r.report.Renamed)
	return topics
}

// listLost lists the offsets that no message in the log has.
func (r *repairer) listLost() {
	for _, m := range r.missing {
		l := LostRange{Topic: r.b.state.topics[m.topic].name, Queue: m.queue, From: m.from, To: m.to}
		if q := r.queues[m.queueKey]; q.known && m.from < q.state.End {
			if e, ok := r.entryAt(m.queueKey, q, m.from); ok && !e.Hole() && e.Position >= 0 {
				file, off := r.at(e.Position)
				if rel, err := filepath.Rel(r.dir, file); err == nil {
					l.File, l.Offset = filepath.ToSlash(rel), off
				}
			}
		}
		r.report.LostMessages += int64(m.to - m.from)
		if len(r.report.Lost) >= r.opts.MaxProblems {
			r.report.More++
			continue
		}
		r.report.Lost = append(r.report.Lost, l)
	}
}

// fold opens the new log and folds it: the names of the checkpoint, then those of
// the log, then what the log says of them.
func (r *repairer) fold(end coord.Position, topics []record.Topic) error {
	b := r.to
	if err := b.openIndexes(); err != nil {
		return err
	}
	if b.fs != vfs.OS() {
		b.journal = nil // there is no writing one; the log says everything
	}
	if r.checkpoint != nil {
		if err := r.foldNames(); err != nil {
			return err
		}
	}
	log, _, err := commitlog.Open(b.logOptions(), commitlog.Start{Synced: end}, func(rec commitlog.Record) error {
		switch {
		case record.KindOf(rec.Payload) == record.KindSettle: // a matter of the second pass
		case r.checkpoint == nil || record.KindOf(rec.Payload) == record.KindMessage:
			_ = b.state.rebuildState(rec) // what makes no sense was reported
		case rec.Position >= r.head.from:
			_ = b.state.applyState(rec.Payload, rec.Position)
		}
		return r.ctx.Err()
	})
	if err != nil {
		return openError(err)
	}
	b.log = log
	for i := range topics {
		b.state.topic(&topics[i], 0)
	}
	b.state.applyStarts()
	b.state.second = true
	err = b.foldContent(r.ctx)
	b.state.second = false
	if err != nil {
		return err
	}
	for key, end := range r.ends {
		if t := b.state.topics[key.topic]; t != nil {
			b.state.grow(t, int(key.queue)+1)
			(*t.queues.Load())[key.queue].entries.Advance(end)
		}
	}
	return nil
}

// foldNames folds the records of the checkpoint; entries are made anew.
func (r *repairer) foldNames() error {
	found, err := journal.Examine(r.fs, r.verifier.path("journal"))
	if err != nil || found.Last == nil {
		return fmt.Errorf("%w: the journal changed meanwhile", ErrDirectory)
	}
	return eachItem(found.Last.Body, func(payload []byte, at coord.Position) error {
		if payload[0] == itemHeader || payload[0] == itemQueue || payload[0] == itemWaiting || payload[0] == itemWindow {
			return nil
		}
		return r.to.restoreRecord(payload, at)
	})
}

// writeDown appends to the new log everything that is in force, so that it is
// all there is without the old checkpoint.
func (r *repairer) writeDown() error {
	b := r.to
	if err := b.begin(); err != nil {
		return err
	}
	err := b.carryState(r.ctx, math.MaxInt64) // what waits was copied with the log
	if err == nil {
		err = b.carryAhead(r.ctx)
	}
	// From here on Close closes, also what an error leaves.
	if closeErr := b.Close(); err == nil {
		err = closeErr
	}
	return err
}

// carryAhead appends again what groups have acknowledged ahead of their committed
// offsets.
func (b *Broker) carryAhead(ctx context.Context) error {
	var acks []*record.Ack
	b.log.Exclusive(func() {
		for _, g := range b.state.groups {
			for id, sub := range g.subs {
				for q := range sub.queues {
					if ahead := sub.queues[q].ahead; len(ahead) > 0 {
						acks = append(acks, &record.Ack{Group: g.id, Start: sub.start, Topic: id, Queue: QueueID(q), Ranges: slices.Clone(ahead)})
					}
				}
			}
		}
	})
	for _, a := range acks {
		if err := b.carry(ctx, func() stateRecord { return a }); err != nil {
			return err
		}
	}
	return nil
}

// finish makes dst a store.
func (r *repairer) finish() error {
	b := r.to
	err := b.fs.SyncDir(b.dir)
	if err == nil {
		err = b.fs.Remove(b.path(repairName))
	}
	if err == nil {
		err = b.fs.SyncDir(b.dir)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	return nil
}
