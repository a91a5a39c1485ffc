package commitlog

// Forget says that what lies below pos will hardly be read again: the system may
// have the memory that caches it. It is a hint, and changes no byte. Only what is
// synced is let go. One caller at a time.
//
// A log that grows by 200 MB a second would fill the machine's memory with pages
// nobody reads. And memory the system has only just got back is quick to give
// out again, for the pages ahead of the tail.
func (l *Log) Forget(pos Position) {
	pos = min(pos, l.Synced())
	for _, s := range *l.segments.Load() {
		from, to := max(l.forgotten, s.base()), min(pos, s.base()+Position(s.bound(pos)))
		if from >= to {
			continue
		}
		f, err := l.handles.acquire(s)
		if err != nil {
			return // dropped or closed meanwhile
		}
		off := int64(from-s.base()) &^ (pageBytes - 1)
		hint := f.Forget(off, int64(to-s.base())-off)
		if err := l.handles.release(s); err != nil || hint != nil {
			return
		}
	}
	l.forgotten = max(l.forgotten, pos)
}
