package sql92

import (
	"fmt"
	"slices"
	"strings"
)

// The grammar. It is RocketMQ's (SelectorParser.jj) but for NOT, which there
// binds tighter than any comparison:
//
//	or         := and { OR and }
//	and        := not { AND not }
//	not        := NOT not | equality
//	equality   := comparison { ( = | <> ) comparison | IS [ NOT ] NULL }
//	comparison := unary { ( > | >= | < | <= ) unary
//	                    | [ NOT ] BETWEEN unary AND unary
//	                    | [ NOT ] IN ( string { , string } )
//	                    | [ NOT ] ( CONTAINS | STARTSWITH | ENDSWITH ) string }
//	unary      := + unary | - unary | NOT unary | primary
//	primary    := string | integer | float | TRUE | FALSE | NULL | name | ( or )

// parser reads one token ahead.
type parser struct {
	lexer
	ahead   token
	last    token // the one that was taken last
	columns []string
	nested  int // calls of the grammar that stand in each other
}

func (p *parser) parse() (node, error) {
	if err := p.advance(); err != nil {
		return node{}, err
	}
	at := p.ahead
	n, err := p.or()
	if err != nil {
		return n, err
	}
	if p.ahead.kind != tokEnd {
		return n, p.unexpected("an operator, or the end")
	}
	return p.condition(n, at)
}

// advance takes the token ahead.
func (p *parser) advance() (err error) {
	p.last = p.ahead
	p.ahead, err = p.next()
	return err
}

// accept takes the token ahead if it is of that kind.
func (p *parser) accept(k tokenKind) (bool, error) {
	if p.ahead.kind != k {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) expect(k tokenKind, want string) error {
	if p.ahead.kind != k {
		return p.unexpected(want)
	}
	return p.advance()
}

func (p *parser) unexpected(want string) error {
	return p.fail(p.ahead.at, p.ahead.end, "want "+want)
}

// refuse says what is wrong with the part of the source from the token at to
// what was read last.
func (p *parser) refuse(at token, why string) error {
	return p.fail(at.at, max(p.last.end, at.end), why)
}

// enter counts how deep the grammar's calls stand in each other. The stack is
// bounded by that, and by grow.
func (p *parser) enter() error {
	if p.nested++; p.nested > MaxDepth {
		return p.tooDeep(p.ahead)
	}
	return nil
}

func (p *parser) leave() { p.nested-- }

func (p *parser) tooDeep(at token) error {
	return p.fail(at.at, at.end, fmt.Sprintf("more than %d levels deep", MaxDepth))
}

// grow makes n the parent of its operands, if the tree may be that deep.
func (p *parser) grow(n node, of ...node) (node, error) {
	n.of = of
	for i := range of {
		n.depth = max(n.depth, of[i].depth+1)
	}
	if n.depth > MaxDepth {
		return n, p.tooDeep(p.last)
	}
	return n, nil
}

func (p *parser) or() (node, error) {
	if err := p.enter(); err != nil {
		return node{}, err
	}
	defer p.leave()
	return p.chain(opOr, tokOr, p.and)
}

func (p *parser) and() (node, error) { return p.chain(opAnd, tokAnd, p.not) }

// chain reads operands with the same operator between them: one node, however
// many.
func (p *parser) chain(o op, between tokenKind, operand func() (node, error)) (node, error) {
	at := p.ahead
	first, err := operand()
	if err != nil || p.ahead.kind != between {
		return first, err
	}
	if first, err = p.condition(first, at); err != nil {
		return first, err
	}
	of := []node{first}
	for p.ahead.kind == between {
		if err := p.advance(); err != nil {
			return first, err
		}
		at := p.ahead
		n, err := operand()
		if err != nil {
			return n, err
		}
		if n, err = p.condition(n, at); err != nil {
			return n, err
		}
		of = append(of, n)
	}
	return p.grow(node{op: o}, of...)
}

func (p *parser) not() (node, error) {
	if p.ahead.kind != tokNot {
		return p.equality()
	}
	return p.negation(p.not)
}

// negation reads NOT and what it denies.
func (p *parser) negation(operand func() (node, error)) (node, error) {
	if err := p.enter(); err != nil {
		return node{}, err
	}
	defer p.leave()
	if err := p.advance(); err != nil {
		return node{}, err
	}
	at := p.ahead
	n, err := operand()
	if err != nil {
		return n, err
	}
	if n, err = p.condition(n, at); err != nil {
		return n, err
	}
	return p.grow(node{op: opNot}, n)
}

func (p *parser) unary() (node, error) {
	switch p.ahead.kind {
	case tokNot:
		return p.negation(p.unary)
	case tokPlus, tokMinus:
		return p.signed()
	}
	return p.primary()
}

// signed reads a sign and what it stands in front of. That of a literal becomes
// part of it.
func (p *parser) signed() (node, error) {
	if err := p.enter(); err != nil {
		return node{}, err
	}
	defer p.leave()
	minus := p.ahead.kind == tokMinus
	if err := p.advance(); err != nil {
		return node{}, err
	}
	at := p.ahead
	if minus && at.kind == tokInteger {
		return p.integer("-")
	}
	n, err := p.unary()
	if err != nil {
		return n, err
	}
	if err := p.numeric(n, at); err != nil || !minus {
		return n, err
	}
	if n.op == opConstant {
		n.constant = negative(n.constant)
		return n, nil
	}
	return p.grow(node{op: opMinus}, n)
}

func (p *parser) primary() (node, error) {
	switch p.ahead.kind {
	case tokString:
		s, err := p.text("")
		return node{op: opConstant, constant: value{kind: text, text: s}}, err
	case tokInteger:
		return p.integer("")
	case tokFloat:
		t := p.ahead
		v := number([]byte(p.source[t.at:t.end]))
		if v.kind == null {
			return node{}, p.unexpected("a number below 1e308")
		}
		return node{op: opConstant, constant: v}, p.advance()
	case tokTrue, tokFalse:
		v := boolean(p.ahead.kind == tokTrue)
		return node{op: opConstant, constant: v}, p.advance()
	case tokNull:
		return node{op: opConstant}, p.advance()
	case tokName:
		return p.column()
	case tokOpen:
		if err := p.advance(); err != nil {
			return node{}, err
		}
		n, err := p.or()
		if err != nil {
			return n, err
		}
		return n, p.expect(tokClose, "an operator, or )")
	}
	return node{}, p.unexpected("a property, a value or (")
}

// integer takes an integer, which the sign in front of it belongs to.
func (p *parser) integer(sign string) (node, error) {
	t := p.ahead
	i, ok := integer([]byte(sign + strings.TrimRight(p.source[t.at:t.end], "lL")))
	if !ok {
		return node{}, p.unexpected("an integer of 64 bits")
	}
	return node{op: opConstant, constant: value{kind: whole, whole: i}}, p.advance()
}

func (p *parser) column() (node, error) {
	name := p.source[p.ahead.at:p.ahead.end]
	if err := p.advance(); err != nil {
		return node{}, err
	}
	if p.ahead.kind == tokOpen {
		return node{}, p.unexpected("an operator: there are no functions")
	}
	i := slices.Index(p.columns, name)
	if i < 0 {
		if len(p.columns) == MaxColumns {
			return node{}, p.fail(p.last.at, p.last.end, fmt.Sprintf("more than %d properties", MaxColumns))
		}
		i = len(p.columns)
		p.columns = append(p.columns, name)
	}
	return node{op: opColumn, column: i}, nil
}

// condition makes n something that is true, false or unknown. A property is true
// where it is equal to TRUE.
func (p *parser) condition(n node, at token) (node, error) {
	switch k := kindOf(n); {
	case n.op == opColumn:
		return p.grow(node{op: opCast}, n)
	case k == truth || n.op == opConstant && k == null:
		return n, nil
	}
	return n, p.refuse(at, "this is neither true nor false; want a condition")
}

// kindOf is what a node comes to unless it is NULL.
func kindOf(n node) kind {
	switch n.op {
	case opConstant:
		return n.constant.kind
	case opColumn:
		return text
	case opMinus:
		return float
	}
	return truth
}
