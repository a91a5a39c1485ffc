// Package labrow is one line of the fault lab's table. The lab's own tools return
// it; tests beside the engine log it, and the lab reads it from what they print.
package labrow

import (
	"encoding/json"
	"strings"
	"testing"
)

// Row says what was promised, and what of that was broken.
type Row struct {
	Tool         string   `json:"tool"`
	Runs         int64    `json:"runs"`
	Acknowledged int64    `json:"acknowledged"`
	Lost         int64    `json:"lost"`
	Again        int64    `json:"delivered_again"`
	Refused      int64    `json:"refused_to_open"`
	Operations   int64    `json:"history_operations,omitempty"` // that package history judged
	Errors       int64    `json:"history_errors"`               // that it found in them
	Note         string   `json:"note,omitempty"`
	Skipped      string   `json:"skipped,omitempty"`  // why it did not run
	Problems     []string `json:"problems,omitempty"` // anything else that is wrong, and details
	Rival        bool     `json:"rival,omitempty"`    // somebody else's store: what it loses is no failure of ours
	Seconds      float64  `json:"seconds"`
}

// Failed reports whether a promise was broken.
func (r *Row) Failed() bool {
	return !r.Rival && (r.Lost > 0 || r.Again > 0 || r.Refused > 0 || r.Errors > 0 || len(r.Problems) > 0)
}

const mark = "lab row: "

// Log has a test print the row. A test that has failed prints none.
func (r Row) Log(t testing.TB) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if !t.Failed() {
		t.Logf("%s%s", mark, text)
	}
}

// Parse returns the row in a line of output, if there is one.
func Parse(line string) (r Row, ok bool) {
	_, text, ok := strings.Cut(line, mark)
	return r, ok && json.Unmarshal([]byte(text), &r) == nil && r.Tool != ""
}
