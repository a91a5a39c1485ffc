package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Recorder collects a history from any number of goroutines. The zero value is
// ready.
type Recorder struct {
	mu   sync.Mutex // guards all below
	ops  []Op
	call int64
}

// Add appends operations, one after another with nothing between them.
func (r *Recorder) Add(ops ...Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, ops...)
}

// Begin appends operations that share a new Call, and returns it.
func (r *Recorder) Begin(ops ...Op) (call int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.call++
	for _, o := range ops {
		o.Call = r.call
		r.ops = append(r.ops, o)
	}
	return r.call
}

// History returns what was recorded so far. The caller must not change it.
func (r *Recorder) History() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ops[:len(r.ops):len(r.ops)]
}

// Write writes a history as JSON, one operation a line.
func Write(w io.Writer, ops []Op) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	for i := range ops {
		if err := enc.Encode(&ops[i]); err != nil {
			return fmt.Errorf("history: write operation %d: %w", i, err)
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("history: write: %w", err)
	}
	return nil
}

// Read reads what Write wrote. A last line that is cut short is left out: the
// writer may have been killed.
func Read(r io.Reader) ([]Op, error) {
	var ops []Op
	dec := json.NewDecoder(r)
	for {
		var o Op
		err := dec.Decode(&o)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return ops, nil
		case err != nil:
			return ops, fmt.Errorf("history: read operation %d: %w", len(ops), err)
		}
		ops = append(ops, o)
	}
}
