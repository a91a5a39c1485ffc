package sql92

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// verdict is what an expression comes to.
type verdict string

const (
	yes     verdict = "true"
	no      verdict = "false"
	unknown verdict = "unknown"
)

func verdictOf(v value) verdict {
	switch {
	case v.kind != truth:
		return unknown
	case v.truth:
		return yes
	}
	return no
}

// evaluate is Match with what is behind it.
func evaluate(e *Expr, properties map[string]string) value {
	values := make([][]byte, len(e.columns))
	for i, name := range e.columns {
		if v, ok := properties[name]; ok {
			values[i] = append([]byte{}, v...)
		}
	}
	return e.root.eval(values)
}

// sample is a message: what it has not is missing.
var sample = map[string]string{
	"amount": "100", "price": "5.5", "big": "9007199254740993", "huge": "12345678901234567890", "neg": "-7", "exp": "1e3", "zero": "0", "minuszero": "-0",
	"min": "-9223372036854775808", "max": "9223372036854775807", "plus": "+5", "point": ".5", "trail": "5.", "padded": "007", "spaced": " 5", "word": "abc", "empty": "",
	"yes": "true", "Yes": "TRUE", "no": "false", "one": "1", "region": "eu-west", "quote": "it's", "TAGS": "TagA", "KEYS": "k1 k2", "_a$1": "x", "$b": "y", "hex": "0x10",
	"inf": "Infinity", "nan": "NaN", "over": "1e400", "under": "1e-400", "half": "0.5", "sign": "-", "dot": ".", "e": "e5", "under_score": "1_000", "utf": "größe",
}

var table = []struct {
	expr string
	want verdict
}{
	// Numbers of a property are read as what they are.
	{"amount > 99", yes}, {"amount > 100", no}, {"amount >= 100", yes}, {"amount < 100", no}, {"amount <= 100", yes}, {"amount = 100", yes}, {"amount <> 100", no},
	{"amount=100", yes}, {"amount>99", yes}, {"99 < amount", yes}, {"100 = amount", yes}, {"101 <> amount", yes}, {"amount = 100.0", yes}, {"amount > 99.5", yes},
	{"amount = 1e2", yes}, {"amount = 1E+2", yes}, {"amount = 1000e-1", yes}, {"amount = 100L", yes}, {"amount = 100l", yes}, {"amount = +100", yes}, {"amount = - -100", yes},
	{"price > 5", yes}, {"price > 6", no}, {"price = 5.5", yes}, {"5 < price", yes}, {"price BETWEEN 5 AND 6", yes}, {"price <> 5", yes},
	{"neg = -7", yes}, {"neg < 0", yes}, {"-neg = 7", yes}, {"+neg = -7", yes}, {"neg > -8", yes}, {"-amount < -99", yes}, {"- - amount = 100", yes},
	{"exp = 1000", yes}, {"exp > 999", yes}, {"zero = 0", yes}, {"zero = 0.0", yes}, {"minuszero = 0", yes}, {"zero = -0", yes}, {"zero < .5", yes}, {"zero < 5.", yes},
	{"plus = 5", yes}, {"point = 0.5", yes}, {"trail = 5", yes}, {"padded = 7", yes},
	// No number is rounded to be compared.
	{"big = 9007199254740993", yes}, {"big = 9007199254740992", no}, {"big > 9007199254740992", yes}, {"big > 9007199254740992.0", yes}, {"big = 9007199254740992.0", no},
	{"max = 9223372036854775807", yes}, {"max < 9223372036854775808.0", yes}, {"max = 9223372036854775808.0", no}, {"min = -9223372036854775808", yes}, {"-min > max", yes},
	{"huge > 9223372036854775807", yes}, {"huge > 1e19", yes}, {"min < max", yes}, {"amount > 3000000000", no}, {"big > 3000000000", yes}, {"under = 0", yes}, {"under < 1e-300", yes},
	{"half > 0", yes}, {"half < 1", yes}, {"-half < 0", yes}, {"-half > -1", yes},
	// What is no number is unknown where one is needed.
	{"word > 5", unknown}, {"word = 5", unknown}, {"word <> 5", unknown}, {"5 <> word", unknown}, {"empty > 5", unknown}, {"empty = 0", unknown}, {"spaced = 5", unknown},
	{"hex = 16", unknown}, {"inf > 5", unknown}, {"nan = 5", unknown}, {"over > 5", unknown}, {"sign < 5", unknown}, {"dot < 5", unknown}, {"e > 5", unknown}, {"under_score > 5", unknown},
	{"word > 5 OR amount = 100", yes}, {"amount = 100 OR word > 5", yes}, {"word > 5 AND amount = 100", unknown}, {"word > 5 AND amount = 1", no}, {"NOT word > 5", unknown},
	{"word > 5 IS NULL", yes}, {"-word = 5", unknown}, {"word BETWEEN 1 AND 2", unknown}, {"word NOT BETWEEN 1 AND 2", unknown},
	// Strings.
	{"word = 'abc'", yes}, {"word = 'ABC'", no}, {"word <> 'abd'", yes}, {"'abc' = word", yes}, {"empty = ''", yes}, {"empty <> ''", no}, {"quote = 'it''s'", yes}, {"quote = 'it'", no},
	{"amount = '100'", yes}, {"amount = '100.0'", no}, {"padded = '7'", no}, {"utf = 'größe'", yes}, {"'a' = 'a'", yes}, {"'a' <> 'b'", yes}, {"'5' = 5", yes}, {"'x' = 5", unknown},
	{"word = word", yes}, {"word = region", no}, {"word <> region", yes}, {"zero = minuszero", no},
	// Two properties: equal as strings, in order as numbers.
	{"amount > price", yes}, {"price < amount", yes}, {"amount >= amount", yes}, {"word > amount", unknown}, {"amount BETWEEN price AND big", yes}, {"amount BETWEEN word AND big", unknown},
	// Booleans.
	{"yes = TRUE", yes}, {"yes = FALSE", no}, {"Yes = true", yes}, {"no = FALSE", yes}, {"no = TRUE", no}, {"TRUE = yes", yes}, {"FALSE = no", yes}, {"TRUE <> yes", no}, {"yes <> FALSE", yes},
	{"word = TRUE", no}, {"word = FALSE", yes}, {"one = TRUE", no}, {"TRUE", yes}, {"FALSE", no}, {"true", yes}, {"TRUE = TRUE", yes}, {"TRUE = 'true'", yes},
	{"yes", yes}, {"no", no}, {"word", no}, {"NOT yes", no}, {"NOT no", yes}, {"(yes)", yes}, {"yes AND amount > 5", yes}, {"no OR yes", yes}, {"(amount > 5) = TRUE", yes},
	{"(amount > 5) = yes", yes}, {"(amount > 5) <> (price > 5)", no}, {"yes = NOT no", yes}, {"amount > 5 = TRUE", yes},
	// NOT stands before all of a comparison.
	{"NOT amount = 5", yes}, {"NOT amount > 5", no}, {"NOT (amount > 5)", no}, {"NOT NOT amount > 5", yes}, {"NOT missing IS NULL", no}, {"NOT amount IS NULL", yes}, {"NOT word IN ('abc')", no},
	{"NOT yes = TRUE", no}, {"NOT no AND yes", yes}, {"NOT (no AND yes)", yes}, {"NOT no OR no", yes},
	// What is missing is unknown, on either side.
	{"missing = 5", unknown}, {"5 = missing", unknown}, {"missing <> 5", unknown}, {"5 <> missing", unknown}, {"missing > 5", unknown}, {"5 > missing", unknown}, {"missing = 'a'", unknown},
	{"missing = missing", unknown}, {"missing = gone", unknown}, {"missing <> gone", unknown}, {"missing > gone", unknown}, {"missing = TRUE", unknown}, {"TRUE = missing", unknown},
	{"missing", unknown}, {"NOT missing", unknown}, {"-missing = 1", unknown}, {"missing BETWEEN 1 AND 2", unknown}, {"missing NOT BETWEEN 1 AND 2", unknown},
	{"amount BETWEEN missing AND 200", unknown}, {"amount BETWEEN missing AND 50", no}, {"amount NOT BETWEEN missing AND 50", yes}, {"missing IN ('a')", unknown}, {"missing NOT IN ('a')", unknown},
	{"Amount = 100", unknown}, {"AMOUNT IS NULL", yes}, {"NULL", unknown}, {"NOT NULL", unknown}, {"NULL IS NULL", yes}, {"5 IS NULL", no}, {"'' IS NOT NULL", yes},
	{"missing IS NULL", yes}, {"missing IS NOT NULL", no}, {"amount IS NULL", no}, {"amount IS NOT NULL", yes}, {"empty IS NULL", no}, {"missing IS NULL IS NULL", no}, {"(missing > 5) IS NULL", yes},
	// AND and OR with three values.
	{"TRUE AND TRUE", yes}, {"TRUE AND FALSE", no}, {"FALSE AND TRUE", no}, {"FALSE AND FALSE", no}, {"TRUE AND NULL", unknown}, {"NULL AND TRUE", unknown}, {"FALSE AND NULL", no}, {"NULL AND FALSE", no},
	{"NULL AND NULL", unknown}, {"TRUE OR TRUE", yes}, {"TRUE OR FALSE", yes}, {"FALSE OR TRUE", yes}, {"FALSE OR FALSE", no}, {"TRUE OR NULL", yes}, {"NULL OR TRUE", yes}, {"FALSE OR NULL", unknown},
	{"NULL OR FALSE", unknown}, {"NULL OR NULL", unknown}, {"TRUE OR FALSE AND FALSE", yes}, {"(TRUE OR FALSE) AND FALSE", no}, {"FALSE AND FALSE OR TRUE", yes}, {"NULL OR FALSE OR TRUE", yes},
	{"NULL AND TRUE AND FALSE", no}, {"missing = 1 OR amount = 100 OR word = 'x'", yes}, {"missing = 1 AND amount = 100", unknown},
	// BETWEEN holds its bounds.
	{"amount BETWEEN 100 AND 100", yes}, {"amount BETWEEN 1 AND 99", no}, {"amount BETWEEN 101 AND 200", no}, {"amount NOT BETWEEN 1 AND 99", yes}, {"amount NOT BETWEEN 100 AND 100", no},
	{"amount BETWEEN 1 AND 200 AND price > 5", yes}, {"amount BETWEEN -1 AND +200", yes}, {"-neg BETWEEN 6.5 AND 7", yes}, {"50 BETWEEN 1 AND amount", yes},
	// IN is for strings.
	{"word IN ('abc')", yes}, {"word IN ('a', 'abc', 'b')", yes}, {"word IN ('a','b')", no}, {"word NOT IN ('a','b')", yes}, {"word NOT IN ('abc')", no}, {"amount IN ('100')", yes}, {"amount IN ('100.0')", no},
	{"empty IN ('')", yes}, {"quote IN ('it''s')", yes}, {"(word) IN ('abc')", yes}, {"word IN ('b','a','abc','abc')", yes},
	// CONTAINS and its kin: never unknown.
	{"region CONTAINS 'u-w'", yes}, {"region CONTAINS 'x'", no}, {"region NOT CONTAINS 'x'", yes}, {"region NOT CONTAINS 'eu'", no}, {"region STARTSWITH 'eu'", yes}, {"region STARTSWITH 'west'", no},
	{"region ENDSWITH 'west'", yes}, {"region ENDSWITH 'eu'", no}, {"region NOT STARTSWITH 'us'", yes}, {"region NOT ENDSWITH 'west'", no}, {"region STARTSWITH 'eu-west-1'", no},
	{"missing CONTAINS 'x'", no}, {"missing NOT CONTAINS 'x'", no}, {"region CONTAINS ''", no}, {"region NOT CONTAINS ''", no}, {"NOT missing CONTAINS 'x'", yes}, {"'haystack' CONTAINS 'stack'", yes},
	{"missing NOT STARTSWITH 'x'", no}, {"region ENDSWITH ''", no}, {"utf CONTAINS 'öß'", yes},
	// Names, keywords, comments, white space.
	{"_a$1 = 'x'", yes}, {"$b = 'y'", yes}, {"TAGS = 'TagA'", yes}, {"TAGS IN ('TagB', 'TagA')", yes}, {"KEYS CONTAINS 'k2'", yes}, {"(TAGS is not null and TAGS in ('TagA','TagB')) and (amount is not null and amount between 0 and 300)", yes},
	{"amount Between 1 aNd 200 Or No", yes}, {"\t amount\n>\r5\f", yes}, {"amount > 5 -- and that is all", yes}, {"-- first\namount > 5", yes}, {"amount /* of\nmoney */ > 5", yes}, {"amount > 5 --", yes},
	{"/**/TRUE/***/", yes}, {"word = '-- no comment'", no}, {"((((amount)))) > ((5))", yes}, {"amount>5 AND(price)<6", yes},
}

func TestTable(t *testing.T) {
	t.Parallel()
	require.GreaterOrEqual(t, len(table), 150)
	for _, row := range table {
		e, err := Parse(row.expr)
		if !assertNoError(t, row.expr, err) {
			continue
		}
		if got := verdictOf(evaluate(e, sample)); got != row.want {
			t.Errorf("%s: %s, want %s", row.expr, got, row.want)
		}
	}
}

func assertNoError(t *testing.T, expr string, err error) bool {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", expr, err)
	}
	return err == nil
}

var refused = []struct {
	expr   string
	offset int
	found  string
	want   string // a part of what the error says
}{
	{"", 0, "the end", "want a property, a value or ("},
	{"  ", 2, "the end", "want a property"},
	{"amount", -1, "", ""}, // a property is a condition
	{"amount >", 8, "the end", "want a property"},
	{"amount > > 5", 9, `">"`, "want a property"},
	{"amount != 5", 7, `"!="`, "<>"},
	{"amount == 5", 7, `"=="`, "equal is ="},
	{"a = 1 && b = 2", 6, `"&&"`, "AND"},
	{"a = 1 || b = 2", 6, `"||"`, "OR"},
	{"!a", 0, `"!"`, "NOT"},
	{`a = "x"`, 4, `"\""`, "single quotes"},
	{"a + 1 = 2", 2, `"+"`, "an operator, or the end"},
	{"a * 2 = 2", 2, `"*"`, "arithmetic"},
	{"a - 1 = 2", 2, `"-"`, "an operator, or the end"},
	{"a LIKE 'x%'", 2, `"LIKE"`, "an operator, or the end"},
	{"abs(a) = 1", 3, `"("`, "no functions"},
	{"a.b = 1", 1, `"."`, "no part of the language"},
	{"a = 'x", 4, `"'x"`, "closing quote"},
	{"a = 'it''", 4, `"'it''"`, "closing quote"},
	{"/* a = 1", 0, `"/*"`, "*/"},
	{"a = 007", 4, `"007"`, "begins with 0"},
	{"a = 5x", 4, `"5x"`, "something else"},
	{"a = 1.2.3", 4, `"1.2."`, "something else"},
	{"a = 0x10", 4, `"0x"`, "something else"},
	{"a = 5e", 4, `"5e"`, "exponent"},
	{"a = 1e400", 4, `"1e400"`, "below 1e308"},
	{"a = 9223372036854775808", 4, `"9223372036854775808"`, "64 bits"},
	{"a = -9223372036854775809", 5, `"9223372036854775809"`, "64 bits"},
	{"a = NULL", 4, `"NULL"`, "IS NULL"},
	{"NULL <> a", 0, `"NULL"`, "IS NULL"},
	{"a > 'x'", 4, `"'x'"`, "strings have no order"},
	{"'x' < a", 0, `"'x'"`, "strings have no order"},
	{"a >= TRUE", 5, `"TRUE"`, "no order"},
	{"a < NULL", 4, `"NULL"`, "no order"},
	{"(a = 1) > 5", 0, `"(a = 1)"`, "no order"},
	{"5 < a < 10", 0, `"5 < a"`, "no order"},
	{"-'x' = 5", 1, `"'x'"`, "no order"},
	{"-TRUE", 1, `"TRUE"`, "no order"},
	{"TRUE = 5", 0, `"TRUE = 5"`, "neither true nor false"},
	{"(a > 1) = 5", 0, `"(a > 1) = 5"`, "neither true nor false"},
	{"(a > 1) = 'x'", 0, `"(a > 1) = 'x'"`, "neither true nor false"},
	{"5", 0, `"5"`, "want a condition"},
	{"'x'", 0, `"'x'"`, "want a condition"},
	{"a = 1 AND 5", 10, `"5"`, "want a condition"},
	{"'x' OR a = 1", 0, `"'x'"`, "want a condition"},
	{"NOT 5", 4, `"5"`, "want a condition"},
	{"-a", 0, `"-a"`, "want a condition"},
	{"a BETWEEN 5 AND 1", 2, `"BETWEEN 5 AND 1"`, "above the upper"},
	{"a BETWEEN 1", 11, "the end", "AND"},
	{"a BETWEEN 1 OR 2", 12, `"OR"`, "AND"},
	{"a BETWEEN 'a' AND 'b'", 10, `"'a'"`, "strings have no order"},
	{"a BETWEEN 1 AND NULL", 16, `"NULL"`, "no order"},
	{"a IN (1, 2)", 6, `"1"`, "a string"},
	{"a IN ()", 6, `")"`, "a string"},
	{"a IN 'x'", 5, `"'x'"`, "("},
	{"a IN ('x'", 9, "the end", ", or )"},
	{"a IN ('x',)", 10, `")"`, "a string"},
	{"'x' IN ('x')", 0, `"'x'"`, "a property in front of IN"},
	{"a IN (b)", 6, `"b"`, "a string"},
	{"a NOT 5", 6, `"5"`, "BETWEEN, IN"},
	{"a NOT = 5", 6, `"="`, "BETWEEN, IN"},
	{"a IS 5", 5, `"5"`, "NULL or NOT NULL"},
	{"a IS NOT 5", 9, `"5"`, "want NULL"},
	{"a IS TRUE", 5, `"TRUE"`, "NULL or NOT NULL"},
	{"a CONTAINS b", 11, `"b"`, "a string"},
	{"a CONTAINS 5", 11, `"5"`, "a string"},
	{"5 CONTAINS 'x'", 0, `"5"`, "search in"},
	{"(a = 1", 6, "the end", "or )"},
	{"a = 1)", 5, `")"`, "or the end"},
	{"()", 1, `")"`, "want a property"},
	{"a = 1 b = 2", 6, `"b"`, "or the end"},
	{"AND a", 0, `"AND"`, "want a property"},
	{"a = 1 AND", 9, "the end", "want a property"},
	{"a = IN", 4, `"IN"`, "want a property"},
	{"a = 1;", 5, `";"`, "no part"},
	{"a = 1\x00", 5, `"\x00"`, "no part"},
	{"größe > 1", 2, `"\xc3"`, "no part"},
}

// TestRefused: an error names the place, what stands there and what could.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, row := range refused {
		e, err := Parse(row.expr)
		if row.offset < 0 {
			assertNoError(t, row.expr, err)
			continue
		}
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%s: accepted as %v", row.expr, e)
			continue
		}
		if syntax.Offset != row.offset || syntax.Found != row.found {
			t.Errorf("%s: at %d found %s, want %d and %s", row.expr, syntax.Offset, syntax.Found, row.offset, row.found)
		}
		require.Contains(t, syntax.Want, row.want, row.expr)
		require.Contains(t, err.Error(), syntax.Found)
	}
}
