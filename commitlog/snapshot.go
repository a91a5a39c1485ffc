package commitlog

import (
	"errors"
	"fmt"
)

// OpenSnapshot opens a log for reading, as it is at this moment: its records are
// replayed as Open does, and what it returns can be read and scanned. Nothing is
// recovered, appended or changed, no goroutine runs, and whoever has the log open
// goes on undisturbed. What is appended later is not seen; a segment that is
// dropped later is ErrNotFound.
//
// Both marks stand at the end of what was written. ErrNotFound: there is no log.
func OpenSnapshot(o Options, s Start, replay func(r Record) error) (*Log, *Recovery, error) {
	o, err := o.prepared()
	if err != nil {
		return nil, nil, err
	}
	r := &recovery{opts: o, start: s, replay: replay, handles: &handles{fs: o.FS}, report: &Recovery{}, reading: true}
	l, err := r.snapshot()
	if err != nil {
		return nil, nil, errors.Join(err, r.handles.close())
	}
	return l, r.report, nil
}

func (r *recovery) snapshot() (*Log, error) {
	if err := r.load(); err != nil {
		return nil, err
	}
	defer r.leaveWindow()
	if len(r.segments) == 0 {
		return nil, fmt.Errorf("%w: no segment in %s", ErrNotFound, r.opts.Dir)
	}
	if err := r.walk(); err != nil {
		return nil, err
	}
	r.leaveWindow()
	r.excuseDropped()
	// What lies behind the end is prepared for later, or torn.
	for len(r.segments) > 1 && r.segments[len(r.segments)-1].base() > r.end {
		r.segments = r.segments[:len(r.segments)-1]
	}
	r.last = r.segments[len(r.segments)-1]
	r.sealOld()
	l := newLog(r.opts, r.codec, r.highest, r.handles, r.segments, max(r.end, r.last.base()+segmentHeaderSize))
	l.snapshot = true
	l.handles.shared = true
	l.closed, l.syncClosed = true, true
	l.opened.Store(true)
	clean := r.start.Clean && r.end == r.start.Synced && len(r.report.Corrupt) == 0
	r.report.Clean, r.report.Start, r.report.End, r.report.Epoch = clean, l.Start(), l.Written(), l.epoch
	return l, nil
}
