package sql92

import (
	"fmt"
	"strings"
)

// tokenKind is what a token is; the keywords are kinds of their own.
type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokName
	tokString
	tokInteger
	tokFloat
	tokOpen
	tokClose
	tokComma
	tokPlus
	tokMinus
	tokEqual
	tokUnequal
	tokGreater
	tokGreaterEqual
	tokLess
	tokLessEqual
	tokNot
	tokAnd
	tokOr
	tokBetween
	tokIn
	tokTrue
	tokFalse
	tokNull
	tokIs
	tokContains
	tokStartsWith
	tokEndsWith
)

// keywords are reserved in any case: no property of these names can be asked for.
var keywords = map[string]tokenKind{
	"NOT": tokNot, "AND": tokAnd, "OR": tokOr, "BETWEEN": tokBetween, "IN": tokIn,
	"TRUE": tokTrue, "FALSE": tokFalse, "NULL": tokNull, "IS": tokIs,
	"CONTAINS": tokContains, "STARTSWITH": tokStartsWith, "ENDSWITH": tokEndsWith,
}

// longestKeyword bounds what is folded to upper case to look for one.
const longestKeyword = len("STARTSWITH")

// token is a piece of the source, which is source[at:end].
type token struct {
	kind    tokenKind
	at, end int
}

// lexer cuts the source into tokens.
type lexer struct {
	source string
	at     int
}

// next returns the token that begins behind white space and comments.
func (l *lexer) next() (token, error) {
	if err := l.skipSpace(); err != nil {
		return token{}, err
	}
	t := token{at: l.at}
	if l.at == len(l.source) {
		t.end = l.at
		return t, nil
	}
	var err error
	switch c := l.source[l.at]; {
	case c == '\'':
		t.kind, err = tokString, l.skipString()
	case digit(c) || c == '.' && l.at+1 < len(l.source) && digit(l.source[l.at+1]):
		t.kind, err = l.number()
	case nameStart(c):
		t.kind = l.name()
	default:
		t.kind, err = l.symbol()
	}
	t.end = l.at
	return t, err
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
func nameStart(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c == '$'
}

func (l *lexer) fail(at, end int, want string) error {
	return &SyntaxError{Offset: at, Found: quoted(l.source[at:end]), Want: want}
}

// quoted shows a piece of the source, cut short if it is long.
func quoted(s string) string {
	if s == "" {
		return "the end"
	}
	const most = 40
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

// skipSpace passes over white space and comments: -- to the end of the line, and
// from /* to */, which does not nest.
func (l *lexer) skipSpace() error {
	for l.at < len(l.source) {
		rest := l.source[l.at:]
		switch {
		case strings.IndexByte(" \t\n\r\f", rest[0]) >= 0:
			l.at++
		case strings.HasPrefix(rest, "--"):
			n := strings.IndexAny(rest, "\r\n")
			if n < 0 {
				n = len(rest)
			}
			l.at += n
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				return l.fail(l.at, l.at+2, "a comment without its */")
			}
			l.at += 2 + n + 2
		default:
			return nil
		}
	}
	return nil
}

// skipString passes over a string: two quotes in it stand for one.
func (l *lexer) skipString() error {
	begin := l.at
	for l.at++; l.at < len(l.source); l.at++ {
		if l.source[l.at] != '\'' {
			continue
		}
		if l.at++; l.at == len(l.source) || l.source[l.at] != '\'' {
			return nil
		}
	}
	return l.fail(begin, len(l.source), "a string without its closing quote")
}

// name passes over an identifier or a keyword.
func (l *lexer) name() tokenKind {
	begin := l.at
	for l.at < len(l.source) && (nameStart(l.source[l.at]) || digit(l.source[l.at])) {
		l.at++
	}
	if word := l.source[begin:l.at]; len(word) <= longestKeyword {
		if kind, ok := keywords[strings.ToUpper(word)]; ok {
			return kind
		}
	}
	return tokName
}

// number passes over a literal number: digits, with a fraction or an exponent it
// is a float, with an l behind them an integer in any case.
func (l *lexer) number() (tokenKind, error) {
	begin, kind := l.at, tokInteger
	l.digits()
	whole := l.source[begin:l.at]
	if l.is('.') {
		kind = tokFloat
		l.at++
		l.digits()
	}
	if l.is('e') || l.is('E') {
		kind = tokFloat
		l.at++
		if l.is('+') || l.is('-') {
			l.at++
		}
		if !l.digits() {
			return kind, l.fail(begin, l.at, "a number without the digits of its exponent")
		}
	}
	switch {
	case kind == tokInteger && len(whole) > 1 && whole[0] == '0':
		return kind, l.fail(begin, l.at, "a number that begins with 0")
	case kind == tokInteger && (l.is('l') || l.is('L')):
		l.at++
	}
	if l.at < len(l.source) && (nameStart(l.source[l.at]) || l.source[l.at] == '.') {
		return kind, l.fail(begin, l.at+1, "a number that runs into something else")
	}
	return kind, nil
}

func (l *lexer) is(c byte) bool { return l.at < len(l.source) && l.source[l.at] == c }

// digits passes over digits and reports whether there were any.
func (l *lexer) digits() bool {
	begin := l.at
	for l.at < len(l.source) && digit(l.source[l.at]) {
		l.at++
	}
	return l.at > begin
}

// symbols are the operators; of two that begin alike the longer stands first.
var symbols = []struct {
	text string
	kind tokenKind
}{
	{"<>", tokUnequal}, {"<=", tokLessEqual}, {">=", tokGreaterEqual}, {"<", tokLess}, {">", tokGreater}, {"=", tokEqual},
	{"(", tokOpen}, {")", tokClose}, {",", tokComma}, {"+", tokPlus}, {"-", tokMinus},
}

// strangers are what people write who know another language.
var strangers = []struct{ text, want string }{
	{"!=", "unequal is <>"}, {"==", "equal is ="}, {"&&", "and is AND"}, {"||", "or is OR"},
	{`"`, "strings stand in single quotes, and names in none"}, {"!", "not is NOT"},
	{"*", "there is no arithmetic"}, {"/", "there is no arithmetic"}, {"%", "there is no arithmetic"},
}

func (l *lexer) symbol() (tokenKind, error) {
	rest := l.source[l.at:]
	for _, s := range strangers {
		if strings.HasPrefix(rest, s.text) {
			return tokEnd, l.fail(l.at, l.at+len(s.text), s.want)
		}
	}
	for _, s := range symbols {
		if strings.HasPrefix(rest, s.text) {
			l.at += len(s.text)
			return s.kind, nil
		}
	}
	return tokEnd, l.fail(l.at, l.at+1, "no part of the language")
}
