package commitlog

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
)

// Gap is a stretch of the log in which no frame is valid.
type Gap struct {
	From, To Position // a valid frame begins at To, or the log ends there

	// File and Offset say where From is. File is a folder if no file holds it.
	File   string
	Offset int64

	// Err is what is wrong at From.
	Err error

	// Damage: something that was synced lay there. Otherwise nothing proves that
	// it ever was, and the next Open drops it with all that follows.
	Damage bool
}

// Missing reports whether no file holds the beginning of the gap.
func (g Gap) Missing() bool { return errors.Is(g.Err, errNoSegment) }

// Header reports whether it is the header of a segment that is damaged.
func (g Gap) Header() bool { return errors.Is(g.Err, errSegmentHeader) }

// Examination is what reading a whole log found.
type Examination struct {
	StoreID uint64 // 0: nothing says it
	Epoch   uint32 // highest
	Start   Position
	End     Position // behind the last frame
	Clean   bool     // it ends where Start.Clean said
	Files   int      // segments, those behind the end included
	Bytes   int64    // allocated
	Frames  int64    // the log's own included
	Records int64

	// Gaps are the first 10,000, in the order of the log. Those of segments that
	// retention has dropped are not listed.
	Gaps []Gap

	// Torn is what lies behind the end and is not zero: what the next Open drops.
	Torn []Gap

	// Short lists the last segment if it has neither an END nor all the bytes it
	// was made with, although the log was not closed.
	Short []Gap

	// Foreign are names in the folder that are no segments'.
	Foreign []string
}

// Examiner is told what Examine comes across. Any of its functions may be nil;
// an error of theirs ends the examination and comes back.
type Examiner struct {
	// Record is called for every record in the order of the log, also for the
	// whole ones in a batch that is damaged elsewhere.
	Record func(Record) error

	// Place tells the file and the offset in it of a position that Record was
	// called with. It is set by Examine.
	Place func(Position) (file string, offset int64)

	// Progress is called now and then: so many bytes of files were read.
	Progress func(read, total int64) error
}

// Examine reads the log in o.Dir from its first frame to its last and changes
// nothing; FS, Dir and HeadLen are all that counts in o. What s says is believed
// as Open believes it, but for From: nothing is left out.
//
// Errors are ErrVersion, those of the file system and those of x. Damage is none.
func Examine(o Options, s Start, x *Examiner) (*Examination, error) {
	o, err := o.prepared()
	if err != nil {
		return nil, err
	}
	e := newExamination(o, s, x)
	r := e.r
	defer func() { _ = r.handles.close() }() // only read
	if err := r.load(); err != nil {
		return nil, err
	}
	defer r.leaveWindow()
	r.onFrame, r.onGap = e.frame, e.gap
	r.replay = e.record
	x.Place = r.place
	if len(r.segments) > 0 || r.start.Synced > 0 {
		if err := r.walk(); err != nil {
			return nil, err
		}
	}
	return e.result(), nil
}

// examination is one run of Examine or Salvage.
type examination struct {
	r     *recovery
	x     *Examiner
	out   Examination
	total int64 // bytes of files
	next  Position
}

func newExamination(o Options, s Start, x *Examiner) *examination {
	s.From, s.Epoch = 0, 0
	r := &recovery{opts: o, start: s, handles: &handles{fs: o.FS}, report: &Recovery{}, reading: true}
	return &examination{r: r, x: x}
}

// progressBytes is how often Progress is called.
const progressBytes = 4 << 20

// tell calls Progress, if it is time.
func (e *examination) tell(pos Position) error {
	if e.x.Progress == nil || pos < e.next {
		return nil
	}
	e.next = pos + progressBytes
	read := int64(0)
	for _, s := range e.r.segments {
		if s.base() > pos {
			break
		}
		read += min(s.bytes.Load(), int64(pos-s.base()))
	}
	return e.x.Progress(read, e.size())
}

// size returns the bytes of all files.
func (e *examination) size() int64 {
	if e.total == 0 {
		for _, s := range e.r.segments {
			e.total += s.bytes.Load()
		}
	}
	return e.total
}

func (e *examination) frame(pos Position, _ header, _ []byte) error {
	e.out.Frames++
	return e.tell(pos)
}

func (e *examination) record(rec Record) error {
	e.out.Records++
	if e.x.Record == nil {
		return nil
	}
	return e.x.Record(rec)
}

func (e *examination) gap(from, to Position, cause error, damage bool) error {
	e.note(from, to, cause, damage)
	return e.r.eachSound(from, to, func(rec Record, _ []byte) error { return e.record(rec) })
}

// note lists a gap.
func (e *examination) note(from, to Position, cause error, damage bool) {
	if len(e.out.Gaps) >= maxCorrupt {
		return
	}
	g := Gap{From: from, To: to, Err: cause, Damage: damage}
	g.File, g.Offset = e.r.place(from)
	e.out.Gaps = append(e.out.Gaps, g)
}

// place returns the file that holds a position, the folder if none does.
func (r *recovery) place(pos Position) (file string, offset int64) {
	if s := findSegment(r.segments, pos); s != nil {
		return s.name, int64(pos - s.base())
	}
	return r.opts.Dir, int64(pos)
}

// result puts together what was found.
func (e *examination) result() *Examination {
	r, out := e.r, &e.out
	out.Files, out.Bytes = len(r.segments), e.size()
	out.Start, out.End, out.Epoch = r.logStart, r.end, r.highest
	if r.known {
		out.StoreID = r.codec.store
	}
	if len(r.segments) > 0 {
		first := r.segments[0].base()
		// Only the whole log tells this; a header says it first.
		if first > r.logStart && slices.ContainsFunc(r.segments, func(s *segment) bool { return s.header.epoch != 0 }) {
			missing := Gap{From: r.logStart, To: first, File: r.opts.Dir, Offset: int64(r.logStart), Err: errNoSegment, Damage: true}
			out.Gaps = append([]Gap{missing}, out.Gaps...)
		}
	}
	kept := out.Gaps[:0]
	for _, g := range out.Gaps {
		if g.To > r.logStart {
			kept = append(kept, g)
		}
	}
	out.Gaps = kept
	out.Clean = r.clean() && len(out.Gaps) == 0
	e.listTorn()
	if entries, err := r.opts.FS.List(r.opts.Dir); err == nil {
		for _, entry := range entries {
			if _, ok := parseSegmentName(entry.Name); !ok || entry.Dir {
				out.Foreign = append(out.Foreign, filepath.Join(r.opts.Dir, entry.Name))
			}
		}
	}
	return out
}

// listTorn lists what the next Open drops, and a last segment that is too short.
func (e *examination) listTorn() {
	r, out := e.r, &e.out
	keep := r.end
	if r.short {
		keep = r.proven
	}
	for _, c := range r.junk {
		if c.From = max(c.From, keep); c.To <= c.From {
			continue
		}
		g := Gap{From: c.From, To: c.To, Err: errTorn}
		g.File, g.Offset = r.place(c.From)
		out.Torn = append(out.Torn, g)
	}
	closed := r.start.Clean && r.end == r.start.Synced
	if s := r.last; s != nil && !s.sealed() && closed && len(out.Torn) == 0 && s.bytes.Load() > int64(r.end-s.base()) {
		g := Gap{From: r.end, To: s.base() + Position(s.bytes.Load()), File: s.name, Offset: int64(r.end - s.base()), Err: errLonger}
		out.Torn = append(out.Torn, g)
	}
	if s := r.last; s != nil && !s.sealed() && !closed && s.bytes.Load() < s.header.capacity {
		g := Gap{From: s.base() + Position(s.bytes.Load()), To: s.next(), File: s.name, Offset: s.bytes.Load(), Err: errCutShort}
		out.Short = append(out.Short, g)
	}
}

// Why bytes behind the end of the log are listed.
var (
	errTorn     = errors.New("no valid frame follows, and nothing proves that one was synced")
	errLonger   = errors.New("the file is longer than it was closed")
	errCutShort = errors.New("the file is shorter than it was made")
)

// String describes the gap.
func (g Gap) String() string {
	to := fmt.Sprint(g.To)
	if g.To == math.MaxInt64 {
		to = "…"
	}
	return fmt.Sprintf("positions %d to %s: %v", g.From, to, g.Err)
}
