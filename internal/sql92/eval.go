package sql92

import (
	"bytes"
	"slices"
)

// kind is what a value is. The zero value is NULL: there is none, or whether it
// is true is unknown.
type kind uint8

const (
	null kind = iota
	truth
	whole
	float
	text
)

// value is what a part of an expression comes to.
type value struct {
	kind  kind
	truth bool
	whole int64
	float float64
	text  []byte
}

func boolean(b bool) value { return value{kind: truth, truth: b} }

// op is what a node does with its operands.
type op uint8

const (
	opConstant op = iota
	opColumn
	opOr
	opAnd
	opNot
	opCast // a property where a boolean must be
	opMinus
	opEqual
	opGreater
	opGreaterEqual
	opLess
	opLessEqual
	opIsNull
	opIn
	opContains
	opStartsWith
	opEndsWith
)

// node is a part of an expression, and the tree below it.
type node struct {
	op       op
	inverse  bool // of opEqual: <>; of the last five: NOT
	depth    int
	column   int      // of opColumn
	constant value    // of opConstant
	search   []byte   // of opContains and its kin
	list     [][]byte // of opIn, sorted
	of       []node
}

// eval never fails: what has no value is NULL.
func (n *node) eval(columns [][]byte) value {
	switch n.op {
	case opConstant:
		return n.constant
	case opColumn:
		if v := columns[n.column]; v != nil {
			return value{kind: text, text: v}
		}
		return value{}
	case opOr:
		return n.logic(columns, true)
	case opAnd:
		return n.logic(columns, false)
	case opNot:
		v := n.of[0].eval(columns)
		v.truth = !v.truth
		return v
	case opCast:
		return asBoolean(n.of[0].eval(columns))
	case opMinus:
		return negative(asNumber(n.of[0].eval(columns)))
	case opIsNull:
		return boolean((n.of[0].eval(columns).kind == null) != n.inverse)
	case opEqual:
		v := equal(n.of[0].eval(columns), n.of[1].eval(columns))
		v.truth = v.truth != n.inverse
		return v
	case opIn:
		return n.in(n.of[0].eval(columns))
	case opContains, opStartsWith, opEndsWith:
		return n.find(n.of[0].eval(columns))
	}
	return n.order(asNumber(n.of[0].eval(columns)), asNumber(n.of[1].eval(columns)))
}

// logic is OR with decisive true, and AND with decisive false: one decisive
// operand decides, else one that is unknown leaves it unknown.
func (n *node) logic(columns [][]byte, decisive bool) value {
	unknown := false
	for i := range n.of {
		switch v := n.of[i].eval(columns); {
		case v.kind == null:
			unknown = true
		case v.truth == decisive:
			return v
		}
	}
	if unknown {
		return value{}
	}
	return boolean(!decisive)
}

// equal compares what can be compared: text is read as what stands on the other
// side. All else is NULL.
func equal(a, b value) value {
	switch {
	case a.kind == null || b.kind == null:
		return value{}
	case a.kind == text && b.kind == text:
		return boolean(bytes.Equal(a.text, b.text))
	case a.kind == truth || b.kind == truth:
		if a, b = asBoolean(a), asBoolean(b); a.kind == null || b.kind == null {
			return value{}
		}
		return boolean(a.truth == b.truth)
	}
	if a, b = asNumber(a), asNumber(b); a.kind == null || b.kind == null {
		return value{}
	}
	return boolean(compare(a, b) == 0)
}

// order is > >= < <= of two numbers.
func (n *node) order(a, b value) value {
	if a.kind == null || b.kind == null {
		return value{}
	}
	c := compare(a, b)
	switch n.op {
	case opGreater:
		return boolean(c > 0)
	case opGreaterEqual:
		return boolean(c >= 0)
	case opLess:
		return boolean(c < 0)
	}
	return boolean(c <= 0)
}

func (n *node) in(v value) value {
	if v.kind == null {
		return v
	}
	_, found := slices.BinarySearchFunc(n.list, v.text, bytes.Compare)
	return boolean(found != n.inverse)
}

// find is CONTAINS and its kin. As in RocketMQ it is false for what is not
// there and for an empty search, with NOT as well.
func (n *node) find(v value) value {
	if v.kind != text || len(n.search) == 0 {
		return boolean(false)
	}
	var found bool
	switch n.op {
	case opContains:
		found = bytes.Contains(v.text, n.search)
	case opStartsWith:
		found = bytes.HasPrefix(v.text, n.search)
	default:
		found = bytes.HasSuffix(v.text, n.search)
	}
	return boolean(found != n.inverse)
}

// asNumber reads text as a number; what is none is NULL.
func asNumber(v value) value {
	switch v.kind {
	case whole, float:
		return v
	case text:
		return number(v.text)
	}
	return value{}
}

// asBoolean reads text as Java's Boolean.valueOf does: "true" in any case is
// true, and all else false.
func asBoolean(v value) value {
	switch v.kind {
	case truth:
		return v
	case text:
		return boolean(len(v.text) == 4 && bytes.EqualFold(v.text, []byte("true")))
	}
	return value{}
}

// negative turns the sign of a number. The least integer has no negative: it is
// a float then.
func negative(v value) value {
	switch {
	case v.kind == whole && -v.whole == v.whole && v.whole != 0:
		return value{kind: float, float: -float64(v.whole)}
	case v.kind == whole:
		v.whole = -v.whole
	case v.kind == float:
		v.float = -v.float
	}
	return v
}
