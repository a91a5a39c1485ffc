package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A mutant is one row of the table: a line that breaks a promise, and the test
// that must notice. A row looks like this:
//
//	[ack-ranges-ascend]
//	keeps: an ack that says nonsense is refused
//	file:  internal/record/ack.go
//	below: func (a *Ack) flaw() string {
//	-	if r.From < end || r.To <= r.From || r.To > MaxOffset {
//	+	if r.From < min(end, 0) || r.To <= r.From || r.To > MaxOffset {
//	test:  ./internal/record -run TestValidate
//
// Blank lines and lines that begin with # mean nothing. The test is what
// `go test` gets, package first. "below" is optional; with it the line is looked
// for only from the one line equal to it to the end of that function.
//
// A test that reads the source as text does not see an overlay. Its row says
// "tree: copy", and is tried in a copy of the repository.
type mutant struct {
	id    string
	keeps string // the invariant or promise that the line keeps
	file  string // relative to the repository, with slashes
	below string
	old   string // without the space around it
	new   string // the same; empty: the line goes
	test  []string
	copy  bool // the test wants a tree of its own
}

var idPattern = regexp.MustCompile(`^\[([a-z0-9][a-z0-9-]*)\]$`)

// parseTable reads the rows and refuses what is not complete.
func parseTable(text string) ([]mutant, error) {
	var (
		rows []mutant
		m    *mutant
		plus bool // the current row has its new line, which may be empty
	)
	done := func() error {
		if m == nil {
			return nil
		}
		if m.keeps == "" || m.file == "" || m.old == "" || !plus || m.old == m.new {
			return fmt.Errorf("mutants: %s: needs keeps, file, - and a different +", m.id)
		}
		if !slices.Contains(m.test, "-run") || strings.HasPrefix(m.test[0], "-") {
			return fmt.Errorf("mutants: %s: test needs a package and -run", m.id)
		}
		if !filepath.IsLocal(filepath.FromSlash(m.file)) {
			return fmt.Errorf("mutants: %s: %s is not in the repository", m.id, m.file)
		}
		return nil
	}
	for n, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if id := idPattern.FindStringSubmatch(trimmed); id != nil {
			if err := done(); err != nil {
				return nil, err
			}
			if slices.ContainsFunc(rows, func(r mutant) bool { return r.id == id[1] }) {
				return nil, fmt.Errorf("mutants: line %d: second row %s", n+1, id[1])
			}
			rows, plus = append(rows, mutant{id: id[1]}), false
			m = &rows[len(rows)-1]
			continue
		}
		if m == nil || !m.set(line, &plus) {
			return nil, fmt.Errorf("mutants: line %d: cannot be read: %s", n+1, line)
		}
	}
	return rows, done()
}

// set takes one line of a row and reports whether it means anything.
func (m *mutant) set(line string, plus *bool) bool {
	if value, ok := strings.CutPrefix(line, "-"); ok {
		m.old = strings.TrimSpace(value)
		return true
	}
	if value, ok := strings.CutPrefix(line, "+"); ok {
		m.new, *plus = strings.TrimSpace(value), true
		return true
	}
	key, value, ok := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	switch key {
	case "keeps":
		m.keeps = value
	case "file":
		m.file = value
	case "below":
		m.below = value
	case "test":
		m.test = strings.Fields(value)
	case "tree":
		m.copy = value == "copy"
		return m.copy
	default:
		return false
	}
	return ok && value != ""
}

// apply returns the source with the one line changed. A line that is not there
// exactly once is an error: the row has gone stale, and a mutation in the wrong
// place proves nothing.
func (m *mutant) apply(src string) (string, error) {
	lines := strings.Split(src, "\n")
	from, to := 0, len(lines)
	if m.below != "" {
		at, err := only(lines, m.below)
		if err != nil {
			return "", fmt.Errorf("mutants: %s: %s: below: %w", m.id, m.file, err)
		}
		from = at + 1
		if end := slices.Index(lines[from:], "}"); end >= 0 {
			to = from + end
		}
	}
	at, err := only(lines[from:to], m.old)
	if err != nil {
		return "", fmt.Errorf("mutants: %s: %s: %w", m.id, m.file, err)
	}
	old := lines[from+at]
	indent := old[:len(old)-len(strings.TrimLeft(old, "\t "))]
	lines[from+at] = indent + m.new
	return strings.Join(lines, "\n"), nil
}

// only returns the index of the one line that is want, space around it aside.
func only(lines []string, want string) (int, error) {
	at, times := 0, 0
	for i, line := range lines {
		if strings.TrimSpace(line) == want {
			at, times = i, times+1
		}
	}
	if times != 1 {
		return 0, fmt.Errorf("found %d times: %s", times, want)
	}
	return at, nil
}

// loadTable reads the table of the repository at root.
func loadTable(root string) ([]mutant, error) {
	text, err := os.ReadFile(filepath.Join(root, "internal", "mutants", "mutants.txt"))
	if err != nil {
		return nil, fmt.Errorf("mutants: read table: %w", err)
	}
	return parseTable(string(text))
}
