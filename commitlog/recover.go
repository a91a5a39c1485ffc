package commitlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
)

// recovery is the state of opening a log. Its steps are those of the documented
// order:
//
//	load      names and headers; an unknown version ends here, nothing changed
//	walk      frames from Start.From on; where one is not valid, either what was
//	          synced is damaged, or the log ends
//	settle    the end is made final: what lies behind it is deleted, newest file
//	          first, and the rest of the last file allocated anew
//	rewrite   what is not proven to be synced is written and synced again
//	raise     a synced EPOCH frame at the end
//
// A crash at any point leaves a log that the same steps bring to the same end:
// walk changes nothing, and settle removes from the back.
type recovery struct {
	opts    Options
	start   Start
	replay  func(Record) error
	codec   codec
	handles *handles
	report  *Recovery

	segments []*segment // as found, oldest first; settle changes it
	known    bool       // the store's id was found

	// What walk finds.
	epoch    uint32     // of the last valid frame; the next one's is not below
	highest  uint32     // epoch ever seen
	proven   Position   // what some frame or checkpoint proves to be synced
	searched bool       // frames behind a bad place were looked for
	logStart Position   // from the last START frame
	end      Position   // behind the last valid frame
	last     *segment   // that holds end, nil: none
	short    bool       // the log ends before proven
	damaged  []Position // of the report's Corrupt
	junk     []Cut      // what is not zero behind the end
	readErr  error      // the file system failed while frames were looked for
	win      window
	winSeg   *segment // what win reads, in use

	// Of Examine and Salvage, which change nothing; else nil and false.
	reading bool                                               // no folder is made
	salvage bool                                               // frames behind a torn place count too
	onFrame func(pos Position, h header, b []byte) error       // a valid frame, before its records
	onGap   func(from, to Position, cause error, d bool) error // none in between; d: damage, else torn
}

// Open opens the log in o.Dir, or makes a new one, and hands every record from
// s.From to the end to replay, in order, on this goroutine. The error of replay
// comes back and ends opening. Nothing is appended or deleted before replay has
// seen everything.
//
// A log that ended uncleanly is recovered; Recovery says what was found and
// done. ErrVersion, an error of replay and of the file system are reasons not to
// open; torn and damaged bytes are none.
func Open(o Options, s Start, replay func(r Record) error) (*Log, *Recovery, error) {
	o, err := o.prepared()
	if err != nil {
		return nil, nil, err
	}
	r := &recovery{opts: o, start: s, replay: replay, handles: &handles{fs: o.FS}, report: &Recovery{}}
	l, err := r.open()
	if err != nil {
		return nil, nil, errors.Join(err, r.handles.close())
	}
	if len(r.report.Cut)+len(r.report.Corrupt) > 0 {
		o.Logger.Warn("commit log: recovered", slog.Any("cut", r.report.Cut), slog.Any("corrupt", r.report.Corrupt))
	}
	l.opened.Store(true)
	l.Poke()
	return l, r.report, nil
}

func (r *recovery) open() (*Log, error) {
	if err := r.load(); err != nil {
		return nil, err
	}
	defer r.leaveWindow()
	if len(r.segments) == 0 && r.start.Synced == 0 {
		return r.create()
	}
	if err := r.walk(); err != nil {
		return nil, err
	}
	r.leaveWindow()
	r.excuseDropped()
	clean := r.clean()
	if !clean {
		if err := r.settle(); err != nil {
			return nil, err
		}
	}
	if err := r.dropBelowStart(); err != nil {
		return nil, err
	}
	return r.resume(clean)
}

// create makes the first segment of a new log.
func (r *recovery) create() (*Log, error) {
	if err := r.succeed(1); err != nil {
		return nil, err
	}
	l := newLog(r.opts, r.codec, 1, r.handles, r.segments, r.end)
	l.run()
	*r.report = Recovery{Clean: true, Start: l.Start(), End: l.Written(), Epoch: 1}
	return l, nil
}

// clean tells whether the log ends exactly where a clean close left it, with
// nothing behind: then there is nothing to settle, and the epoch stays.
func (r *recovery) clean() bool {
	n := len(r.segments)
	return r.start.Clean && n > 0 && r.last == r.segments[n-1] && !r.last.sealed() && !r.short &&
		r.end == r.start.Synced && r.last.bytes.Load() == int64(r.end-r.last.base()) &&
		len(r.report.Corrupt) == 0
}

// resume builds the log on what is left and raises the epoch.
func (r *recovery) resume(clean bool) (*Log, error) {
	epoch := r.highest
	if !clean {
		epoch++
	}
	r.sealOld()
	if r.last == nil || r.last.sealed() {
		if err := r.succeed(epoch); err != nil {
			return nil, err
		}
	} else if err := r.reopen(r.last, int64(r.end-r.last.base())); err != nil {
		return nil, err
	}
	l := newLog(r.opts, r.codec, epoch, r.handles, r.segments, r.end)
	for _, s := range r.segments {
		l.clock.now.Store(max(l.clock.now.Load(), s.header.created, s.stored.Load()))
	}
	l.run()
	if !clean {
		if err := r.raise(l); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	r.report.Clean = clean
	r.report.Start, r.report.End, r.report.Epoch = l.Start(), l.Written(), epoch
	return l, nil
}

// raise appends and syncs the frame that begins the new epoch.
func (r *recovery) raise(l *Log) error {
	ctx := context.Background() // ends with the disk's answer
	c := control{kind: controlEpoch, value: uint64(l.epoch), time: l.clock.now.Load()}
	end, err := l.append(ctx, Reserved, controlLayout, flagControl, fillControl(c))
	if err == nil {
		err = l.Wait(ctx, end)
	}
	if err != nil {
		return fmt.Errorf("commitlog: raise epoch: %w", err)
	}
	return nil
}

// makeDir makes the log's folder, if it is missing, and its name durable.
func (r *recovery) makeDir() error {
	if err := r.opts.FS.MkdirAll(r.opts.Dir); err != nil {
		return fmt.Errorf("commitlog: make folder: %w", err)
	}
	if err := r.opts.FS.SyncDir(filepath.Dir(r.opts.Dir)); err != nil {
		return fmt.Errorf("commitlog: sync folder above: %w", err)
	}
	return nil
}
