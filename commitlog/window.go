package commitlog

import (
	"errors"
	"fmt"
	"io"
)

const (
	// windowBytes is how much is read ahead when a file is read front to back.
	windowBytes = 256 << 10

	// keepBytes is the largest buffer that is kept for reuse. Frames are rarely
	// larger; one of 16 MiB must not pin 16 MiB for ever.
	keepBytes = 1 << 20
)

// window reads a file through one buffer.
type window struct {
	src io.ReaderAt
	at  int64 // of buf in the file
	buf []byte
}

// reset turns the window to another file.
func (w *window) reset(src io.ReaderAt) {
	w.src, w.at, w.buf = src, 0, w.buf[:0]
	if cap(w.buf) > keepBytes {
		w.buf = nil
	}
}

// bytes returns [off, off+n) of the file, n being at most MaxFrameBytes. It
// reads ahead, but not at or beyond bound. The slice is valid until the next
// call. What lies beyond bound or the end of the file is errShort.
func (w *window) bytes(off, n, bound int64) ([]byte, error) {
	if off < 0 || n < 0 || n > bound-off {
		return nil, errShort
	}
	if b := w.buffered(off, n); b != nil {
		return b, nil
	}
	size := min(max(n, windowBytes), bound-off)
	if int64(cap(w.buf)) < size {
		w.buf = make([]byte, 0, size)
	}
	// The bytes beyond the old end are undefined until the read says how many
	// there are.
	got, err := w.src.ReadAt(w.buf[:size], off)
	w.at, w.buf = off, w.buf[:got]
	if int64(got) >= n {
		return w.buf[:n], nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return nil, errShort
	}
	return nil, &readError{err}
}

// buffered returns [off, off+n) if that was read already, else nil.
func (w *window) buffered(off, n int64) []byte {
	if off < w.at || off+n > w.at+int64(len(w.buf)) {
		return nil
	}
	return w.buf[off-w.at : off-w.at+n : off-w.at+n]
}

// ahead returns what there is from off on, at least n bytes, without reading
// again what is in the buffer.
func (w *window) ahead(off, n, bound int64) ([]byte, error) {
	if _, err := w.bytes(off, n, bound); err != nil {
		return nil, err
	}
	return w.buf[off-w.at : min(int64(len(w.buf)), bound-w.at)], nil
}

// readError is an error of the file system, as opposed to bytes that are there
// but make no sense.
type readError struct{ err error }

func (e *readError) Error() string { return fmt.Sprintf("read: %v", e.err) }
func (e *readError) Unwrap() error { return e.err }
