package mq

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/journal"
	"github.com/pocketmq/mq/internal/record"
	"github.com/pocketmq/mq/internal/vfs"
)

// VerifyOptions says how a store is examined. Nil means the defaults.
type VerifyOptions struct {
	// MaxProblems is how many problems are listed; further ones are counted.
	// Default 1,000.
	MaxProblems int

	// BufferBytes bounds the buffers through which the files of message queues
	// are read, all queues together. Default 16 MiB.
	BufferBytes int64

	// Progress is called every few megabytes, on the caller's goroutine. Nil
	// calls nothing.
	Progress func(Progress)
}

// Progress tells how far Verify or Repair has come.
type Progress struct {
	Step  string // "checkpoints", "log", "indexes"; of Repair also "folding"
	Done  int64  // bytes of the log
	Total int64
}

// ProblemKind says what is wrong.
type ProblemKind string

// The kinds of problems. Those of the first group are damage; what the others
// name is found in a store that nobody has damaged, too.
const (
	// DamagedLog: the log holds no valid frame where there was one that was
	// synced. Messages, acknowledgements or names are lost.
	DamagedLog ProblemKind = "damaged log"
	// DamagedHeader: a segment's header cannot be read. Nothing is lost by that.
	DamagedHeader ProblemKind = "damaged segment header"
	// MissingSegment: no file holds a part of the log that was there.
	MissingSegment ProblemKind = "missing segment"
	// DamagedRecord: a valid frame holds a record that makes no sense.
	DamagedRecord ProblemKind = "damaged record"
	// UnknownTopic: messages of a topic whose name and settings are lost.
	UnknownTopic ProblemKind = "messages of an unknown topic"
	// DamagedJournal: checkpoints cannot be read. If none is left, opening folds
	// the whole log.
	DamagedJournal ProblemKind = "damaged journal"
	// DamagedEntry: an entry of a message queue does not lead to its message.
	// Reading looks for it in the log and puts it right.
	DamagedEntry ProblemKind = "damaged queue entry"
	// DamagedQueueFile: a file of a message queue is missing or too short.
	// Opening folds the whole log then.
	DamagedQueueFile ProblemKind = "damaged queue file"
	// DamagedKeyFile: a file of key hashes, or of the times that delayed messages
	// wait for, is missing or damaged. It is made again when it is asked for.
	DamagedKeyFile ProblemKind = "damaged key file"
	// Unreadable: the file system gave an error.
	Unreadable ProblemKind = "unreadable"

	// TornTail: behind the last frame there is something that is none, and nothing
	// proves that it was ever synced. The next Open drops it. A process or a power
	// cut that came while it was being written leaves that; damage to messages that
	// were not known to be synced looks the same.
	TornTail ProblemKind = "torn tail"
	// Hole: no message in the log has these offsets. What was lost once leaves
	// holes for good; consumers skip them.
	Hole ProblemKind = "hole"
	// Leftover: a file that an interrupted operation left. Open removes it.
	Leftover ProblemKind = "leftover"
	// UnknownFile: a file that is none of the store's. It is left alone.
	UnknownFile ProblemKind = "unknown file"
)

// Damage reports whether the kind is one of damage.
func (k ProblemKind) Damage() bool {
	switch k {
	case TornTail, Hole, Leftover, UnknownFile:
		return false
	}
	return true
}

// Problem is something in a store that is not as it should be.
type Problem struct {
	Kind   ProblemKind `json:"kind"`
	File   string      `json:"file,omitempty"` // relative to the store, with slashes; or a folder
	Offset int64       `json:"offset"`         // in the file, of the first byte concerned
	Bytes  int64       `json:"bytes,omitempty"`
	Topic  string      `json:"topic,omitempty"`
	Queue  QueueID     `json:"queue"`
	From   Offset      `json:"from"` // of a Topic's queue: offsets From <= o < To
	To     Offset      `json:"to"`
	Detail string      `json:"detail,omitempty"`
}

// String describes the problem on one line.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(string(p.Kind))
	if p.Topic != "" {
		fmt.Fprintf(&b, ": %v offsets %d to %d", Queue{p.Topic, p.Queue}, p.From, p.To-1)
	}
	if p.File != "" {
		fmt.Fprintf(&b, ": %s at %d", p.File, p.Offset)
	}
	if p.Bytes > 0 {
		fmt.Fprintf(&b, ", %d bytes", p.Bytes)
	}
	if p.Detail != "" {
		b.WriteString(": " + p.Detail)
	}
	return b.String()
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	Dir     string `json:"dir"`
	Store   string `json:"store,omitempty"` // its id, as in message ids; empty: nothing says it
	Epoch   uint32 `json:"epoch"`
	Owner   int    `json:"owner,omitempty"` // process that LOCK names: it has the store open, or was killed
	Closed  bool   `json:"closed"`          // by Close, and nothing changed since
	Changed bool   `json:"changed"`         // while it was examined: somebody has it open

	Segments   int   `json:"segments"`
	LogBytes   int64 `json:"logBytes"`
	Frames     int64 `json:"frames"`
	Messages   int64 `json:"messages"` // in the log, of topics that are not deleted
	Acks       int64 `json:"acks"`     // records of them
	Topics     int   `json:"topics"`
	Groups     int   `json:"groups"` // broadcasting members each count
	QueueFiles int   `json:"queueFiles"`
	KeyFiles   int   `json:"keyFiles"`

	Problems []Problem `json:"problems"`
	More     int64     `json:"more,omitempty"` // problems beyond VerifyOptions.MaxProblems
	damaged  bool
}

// OK reports whether nothing is damaged: every problem is of a kind that an
// undamaged store can have.
func (r *VerifyReport) OK() bool { return !r.damaged }

// String is the report for people: a line that sums up, and one for each problem.
func (r *VerifyReport) String() string {
	var b strings.Builder
	verdict := "sound"
	if !r.OK() {
		verdict = "DAMAGED"
	}
	fmt.Fprintf(&b, "%s: %s; %d segments (%d bytes), %d frames, %d messages, %d acks, %d topics, %d groups",
		r.Dir, verdict, r.Segments, r.LogBytes, r.Frames, r.Messages, r.Acks, r.Topics, r.Groups)
	if r.Changed {
		b.WriteString("; it changed meanwhile: somebody has it open, so look again")
	}
	for _, p := range r.Problems {
		b.WriteString("\n  " + p.String())
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "\n  and %d more", r.More)
	}
	return b.String()
}

func (r *VerifyReport) add(limit int, p Problem) {
	r.damaged = r.damaged || p.Kind.Damage()
	if len(r.Problems) >= limit {
		r.More++
		return
	}
	r.Problems = append(r.Problems, p)
}

// Verify reads the whole store in dir and reports everything in it that is
// damaged, with file and position. It changes nothing, takes no lock and repairs
// nothing: neither bytes nor, on Linux, the access times of the caller's own
// files move.
//
// It reads the log from its first frame to its last, holds every frame against its
// hashes, the checkpoint, the entries of message queues and the files of keys
// against the log, and looks at every name in the directory. That takes a second
// per few hundred megabytes; ctx ends it. Memory: a checkpoint (about 16 MiB at
// most), what there is of topics and groups, and the bounds in the options.
//
// A store that somebody has open can be examined: it is not disturbed. But what
// is written meanwhile may look torn, and files that go meanwhile may look
// missing. Changed tells; believe a report of damage if it is false.
//
// Errors: ErrNoStore, ErrVersion, ErrInvalidOptions, that of ctx, and those of the
// file system where nothing can be read at all. Damage is no error.
func Verify(ctx context.Context, dir string, options *VerifyOptions) (*VerifyReport, error) {
	v, err := newVerifier(ctx, vfs.OS(), dir, options)
	if err != nil {
		return nil, err
	}
	if err := v.run(); err != nil {
		return nil, err
	}
	return v.report, nil
}

// verifier is one run of Verify, or the reading half of Repair.
type verifier struct {
	ctx    context.Context // of the one call
	fs     vfs.FS          // read only
	dir    string
	opts   VerifyOptions
	report *VerifyReport

	// b is no open broker: its state is the fold over the checkpoint and what is
	// read of the log, names and progress only.
	b          *Broker
	checkpoint *journal.Checkpoint // nil: there is none that can be used
	head       itemHead
	at         func(coord.Position) (string, int64)

	queues  map[queueKey]*queueCheck
	missing []missingRun
	unknown map[coord.TopicID]*unknownTopic
	deleted map[coord.TopicID]bool
}

func newVerifier(ctx context.Context, fsys vfs.FS, dir string, options *VerifyOptions) (*verifier, error) {
	var o VerifyOptions
	if options != nil {
		o = *options
	}
	setDefault(&o.MaxProblems, 1000)
	setDefault(&o.BufferBytes, 16*mib)
	switch {
	case o.MaxProblems < 0:
		return nil, invalidOption("MaxProblems", o.MaxProblems)
	case o.BufferBytes < 0:
		return nil, invalidOption("BufferBytes", o.BufferBytes)
	}
	v := &verifier{
		ctx: ctx, fs: vfs.ReadOnly(fsys), dir: dir, opts: o,
		report:  &VerifyReport{Dir: dir, Problems: []Problem{}},
		queues:  map[queueKey]*queueCheck{},
		unknown: map[coord.TopicID]*unknownTopic{}, deleted: map[coord.TopicID]bool{},
	}
	if err := isStore(v.fs, dir); err != nil {
		return nil, err
	}
	return v, v.clear()
}

// clear makes the fold one over nothing.
func (v *verifier) clear() (err error) {
	v.b = newBroker((*Options)(nil).withDefaults(false), v.fs, v.dir)
	// Queues of the fold exist, and stay empty.
	v.b.entries, err = consumequeue.Open(vfs.NewMem(0), "none", consumequeue.Options{})
	return err
}

// isStore tells a store from any other directory.
func isStore(fsys vfs.FS, dir string) error {
	entries, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %q does not exist", ErrNoStore, dir)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoStore, err)
	}
	for _, e := range entries {
		if e.Dir && (e.Name == "commitlog" || e.Name == "journal") {
			return nil
		}
	}
	return fmt.Errorf("%w: %q has neither a log nor a journal", ErrNoStore, dir)
}

func (v *verifier) path(name string) string { return filepath.Join(v.dir, name) }

// problem notes one. Its file is made relative to the store.
func (v *verifier) problem(p Problem) {
	if rel, err := filepath.Rel(v.dir, p.File); err == nil && p.File != "" {
		p.File = filepath.ToSlash(rel)
	}
	v.report.add(v.opts.MaxProblems, p)
}

// progress tells how far it is, and whether to go on.
func (v *verifier) progress(step string, done, total int64) error {
	if v.opts.Progress != nil {
		v.opts.Progress(Progress{Step: step, Done: done, Total: total})
	}
	return v.ctx.Err()
}

// run examines everything. The checkpoint comes before the log: of a store that
// is in use the log then knows at least as much.
func (v *verifier) run() error {
	before := fingerprint(v.fs, v.dir)
	if err := v.readCheckpoint(); err != nil {
		return err
	}
	found, err := commitlog.Examine(v.logOptions(), v.logStart(), v.examiner())
	if err := v.logRead(found, err); err != nil {
		return err
	}
	if err := v.checkFiles(found); err != nil {
		return err
	}
	v.report.Changed = before != fingerprint(v.fs, v.dir)
	return v.ctx.Err()
}

// logOptions are those that count when a log is read.
func (v *verifier) logOptions() commitlog.Options {
	return commitlog.Options{FS: v.fs, Dir: v.path("commitlog"), HeadLen: record.HeadLen}
}

// logStart is what the checkpoint proves.
func (v *verifier) logStart() commitlog.Start {
	if v.checkpoint == nil {
		return commitlog.Start{}
	}
	return commitlog.Start{Synced: v.head.to, Clean: v.checkpoint.Clean}
}

// examiner is told of the log.
func (v *verifier) examiner() *commitlog.Examiner {
	x := &commitlog.Examiner{
		Record:   v.record,
		Progress: func(read, total int64) error { return v.progress("log", read, total) },
	}
	v.at = func(pos coord.Position) (string, int64) { return x.Place(pos) }
	return x
}

// fingerprint is that of the names and sizes of what is written most.
func fingerprint(fsys vfs.FS, dir string) string {
	var b strings.Builder
	for _, name := range []string{"commitlog", "journal", "index", "timer"} {
		entries, _ := fsys.List(filepath.Join(dir, name))
		for _, e := range entries {
			fmt.Fprintf(&b, "%s/%s %d\n", name, e.Name, e.Size)
			if name == "journal" && e.Dir {
				below, _ := fsys.List(filepath.Join(dir, name, e.Name))
				fmt.Fprintf(&b, "%v\n", below)
			}
		}
	}
	return b.String()
}
