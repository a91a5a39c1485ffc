// Package sql92 is the language of RocketMQ's SQL92 filters: expressions over
// the properties of a message that are true, false or unknown.
//
// An expression is compiled once and holds no state: any number of goroutines
// may evaluate it. It knows no messages. Whoever evaluates it asks it for the
// names it looks at and hands their values in, as bytes that nobody copies:
//
//	Parse ──► Expr ── Columns ──► names ──► values ──► Match
//
// No input takes the process down: the length of an expression and the depth of
// its tree are bounded, so the stack is, and evaluation is linear in both.
package sql92

import (
	"fmt"
	"reflect"
	"slices"
)

// MaxLength is how many bytes an expression may have.
const MaxLength = 16 << 10

// MaxDepth is how deep operators and parentheses may stand in each other. Of AND
// and OR a chain of any length counts once.
const MaxDepth = 100

// MaxColumns is how many properties an expression may look at.
const MaxColumns = 100

// Expr is a compiled expression. It does not change.
type Expr struct {
	source  string
	columns []string
	root    node
}

// Columns returns the names of the properties that the expression looks at, each
// once. The caller must not change the slice.
func (e *Expr) Columns() []string { return e.columns }

// String returns the expression as it was written.
func (e *Expr) String() string { return e.source }

// Equal reports whether both are the same expression, however it is written:
// white space, comments, the case of keywords and needless parentheses aside.
func (e *Expr) Equal(f *Expr) bool {
	return slices.Equal(e.columns, f.columns) && reflect.DeepEqual(e.root, f.root)
}

// Match reports whether the expression is true; unknown is not. values are the
// properties that Columns names, in its order; nil is one that the message does
// not have. Nothing is allocated, and nothing of values kept.
func (e *Expr) Match(values [][]byte) bool {
	v := e.root.eval(values)
	return v.kind == truth && v.truth
}

// SyntaxError says where an expression cannot be read, and what could be.
type SyntaxError struct {
	Offset int    // bytes of the expression in front of the place
	Found  string // what stands there, as it is written; "the end" at its end
	Want   string // what could stand there, or what is wrong with what does
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("at offset %d: %s: %s", e.Offset, e.Found, e.Want)
}

// Parse compiles an expression. Its error is a *SyntaxError.
func Parse(source string) (*Expr, error) {
	if len(source) > MaxLength {
		return nil, &SyntaxError{Offset: MaxLength, Found: fmt.Sprintf("%d bytes", len(source)), Want: fmt.Sprintf("at most %d", MaxLength)}
	}
	p := parser{lexer: lexer{source: source}}
	root, err := p.parse()
	if err != nil {
		return nil, err
	}
	return &Expr{source: source, columns: p.columns, root: root}, nil
}
