package sql92

import (
	"bytes"
	"slices"
	"strings"
)

// What compares: the lines equality and comparison of the grammar.

func (p *parser) equality() (node, error) {
	at := p.ahead
	left, err := p.comparison()
	for err == nil {
		switch k := p.ahead.kind; k {
		case tokEqual, tokUnequal:
			left, err = p.equal(left, at, k == tokUnequal)
		case tokIs:
			left, err = p.isNull(left)
		default:
			return left, nil
		}
	}
	return left, err
}

func (p *parser) equal(left node, at token, unequal bool) (node, error) {
	if err := p.comparable(left, at); err != nil {
		return left, err
	}
	if err := p.advance(); err != nil {
		return left, err
	}
	behind := p.ahead
	right, err := p.comparison()
	if err != nil {
		return right, err
	}
	if err := p.comparable(right, behind); err != nil {
		return right, err
	}
	if a, b := kindOf(left), kindOf(right); a != b && (a == truth && b != text || b == truth && a != text) {
		return right, p.refuse(at, "a number is neither true nor false")
	}
	if left.op >= opOr && kindOf(left) == truth && right.op == opConstant && right.constant.kind == text ||
		right.op >= opOr && kindOf(right) == truth && left.op == opConstant && left.constant.kind == text {
		return right, p.refuse(at, "a string is neither true nor false")
	}
	return p.grow(node{op: opEqual, inverse: unequal}, left, right)
}

// comparable refuses NULL: nothing is equal to it.
func (p *parser) comparable(n node, at token) error {
	if n.op == opConstant && n.constant.kind == null {
		return p.refuse(at, "nothing is equal to NULL; want IS NULL or IS NOT NULL")
	}
	return nil
}

func (p *parser) isNull(left node) (node, error) {
	if err := p.advance(); err != nil {
		return left, err
	}
	not, err := p.accept(tokNot)
	if err != nil {
		return left, err
	}
	want := "NULL or NOT NULL"
	if not {
		want = "NULL"
	}
	if err := p.expect(tokNull, want); err != nil {
		return left, err
	}
	return p.grow(node{op: opIsNull, inverse: not}, left)
}

// ordered are the operators that compare numbers.
var ordered = map[tokenKind]op{
	tokGreater: opGreater, tokGreaterEqual: opGreaterEqual, tokLess: opLess, tokLessEqual: opLessEqual,
}

func (p *parser) comparison() (node, error) {
	at := p.ahead
	left, err := p.unary()
	for err == nil {
		not := false
		if o, ok := ordered[p.ahead.kind]; ok {
			left, err = p.compare(o, left, at)
			continue
		}
		if not, err = p.accept(tokNot); err != nil {
			return left, err
		}
		switch p.ahead.kind {
		case tokBetween:
			left, err = p.between(left, at, not)
		case tokIn:
			left, err = p.in(left, at, not)
		case tokContains, tokStartsWith, tokEndsWith:
			left, err = p.find(left, at, not)
		default:
			if not {
				return left, p.unexpected("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH")
			}
			return left, nil
		}
	}
	return left, err
}

// compare reads an operator and what stands behind it.
func (p *parser) compare(o op, left node, at token) (node, error) {
	if err := p.numeric(left, at); err != nil {
		return left, err
	}
	right, err := p.numericUnary()
	if err != nil {
		return right, err
	}
	return p.grow(node{op: o}, left, right)
}

// numericUnary takes a token and reads the number behind it.
func (p *parser) numericUnary() (node, error) {
	if err := p.advance(); err != nil {
		return node{}, err
	}
	at := p.ahead
	n, err := p.unary()
	if err != nil {
		return n, err
	}
	return n, p.numeric(n, at)
}

// numeric refuses what can never be a number. Properties can.
func (p *parser) numeric(n node, at token) error {
	switch k := kindOf(n); {
	case k == whole || k == float || n.op == opColumn:
		return nil
	case n.op == opConstant && k == null:
		return p.refuse(at, "NULL has no order; want a number or a property")
	case k == text:
		return p.refuse(at, "strings have no order; want a number or a property")
	}
	return p.refuse(at, "true and false have no order; want a number or a property")
}

func (p *parser) between(left node, at token, not bool) (node, error) {
	if err := p.numeric(left, at); err != nil {
		return left, err
	}
	bounds := p.ahead
	low, err := p.numericUnary()
	if err != nil {
		return low, err
	}
	if p.ahead.kind != tokAnd {
		return low, p.unexpected("AND and the upper bound")
	}
	high, err := p.numericUnary()
	if err != nil {
		return high, err
	}
	if low.op == opConstant && high.op == opConstant && compare(low.constant, high.constant) > 0 {
		return high, p.refuse(bounds, "the lower bound lies above the upper one")
	}
	lower, upper, both := opGreaterEqual, opLessEqual, opAnd
	if not {
		lower, upper, both = opLess, opGreater, opOr
	}
	a, err := p.grow(node{op: lower}, left, low)
	if err != nil {
		return a, err
	}
	b, err := p.grow(node{op: upper}, left, high)
	if err != nil {
		return b, err
	}
	return p.grow(node{op: both}, a, b)
}

func (p *parser) in(left node, at token, not bool) (node, error) {
	if left.op != opColumn {
		return left, p.refuse(at, "want a property in front of IN")
	}
	if err := p.advance(); err != nil {
		return left, err
	}
	if err := p.expect(tokOpen, "( and a list of strings"); err != nil {
		return left, err
	}
	var list [][]byte
	for {
		s, err := p.text("a string: IN takes no other values")
		if err != nil {
			return left, err
		}
		list = append(list, s)
		more, err := p.accept(tokComma)
		if err != nil {
			return left, err
		}
		if !more {
			break
		}
	}
	if err := p.expect(tokClose, ", or )"); err != nil {
		return left, err
	}
	slices.SortFunc(list, bytes.Compare)
	list = slices.CompactFunc(list, bytes.Equal)
	return p.grow(node{op: opIn, inverse: not, list: list}, left)
}

var finders = map[tokenKind]op{tokContains: opContains, tokStartsWith: opStartsWith, tokEndsWith: opEndsWith}

func (p *parser) find(left node, at token, not bool) (node, error) {
	if left.op != opColumn && kindOf(left) != text {
		return left, p.refuse(at, "want a property or a string to search in")
	}
	o := finders[p.ahead.kind]
	if err := p.advance(); err != nil {
		return left, err
	}
	search, err := p.text("a string to look for")
	if err != nil {
		return left, err
	}
	return p.grow(node{op: o, inverse: not, search: search}, left)
}

// text takes a string literal.
func (p *parser) text(want string) ([]byte, error) {
	if p.ahead.kind != tokString {
		return nil, p.unexpected(want)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	s := p.source[p.last.at+1 : p.last.end-1]
	return []byte(strings.ReplaceAll(s, "''", "'")), nil
}
