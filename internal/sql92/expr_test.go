package sql92

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func compile(t testing.TB, expr string) *Expr {
	t.Helper()
	e, err := Parse(expr)
	require.NoError(t, err, expr)
	return e
}

// TestNothingIsAllocated by an evaluation, whatever the values are.
func TestNothingIsAllocated(t *testing.T) {
	all := make([]string, 0, len(table))
	for _, row := range table {
		all = append(all, row.expr)
	}
	all = append(all, `big > 5 AND huge > 1.5 AND word > 1 AND over < 1`)
	for _, expr := range all {
		e := compile(t, expr)
		values := make([][]byte, len(e.Columns()))
		for i, name := range e.Columns() {
			if v, ok := sample[name]; ok {
				values[i] = []byte(v)
			}
		}
		require.Zero(t, testing.AllocsPerRun(10, func() { e.Match(values) }), expr)
	}
	e := compile(t, "a > 5")
	for _, odd := range []string{"", "x", strings.Repeat("9", 30000), "1e308", "1e309", "0." + strings.Repeat("0", 30000) + "1", strings.Repeat("1", 400) + "e-200", "1e-99999999999999999999"} {
		values := [][]byte{[]byte(odd)}
		require.Zero(t, testing.AllocsPerRun(10, func() { e.Match(values) }), "%.20q", odd)
	}
}

// TestMatch: only what is true matches.
func TestMatch(t *testing.T) {
	t.Parallel()
	e := compile(t, "a = 1 OR b")
	require.Equal(t, []string{"a", "b"}, e.Columns())
	require.Equal(t, "a = 1 OR b", e.String())
	require.True(t, e.Match([][]byte{[]byte("1"), nil}))
	require.True(t, e.Match([][]byte{nil, []byte("true")}))
	require.False(t, e.Match([][]byte{nil, nil}), "unknown")
	require.False(t, e.Match([][]byte{[]byte("2"), []byte("x")}))
}

func TestEqualExpressions(t *testing.T) {
	t.Parallel()
	same := []string{"a > 5 AND b = 'x'", "a>5 and b='x'", "(a > 5) AND (b = 'x')", "a -- first\n > 5 /* then */ AND b = 'x'", "a > 5L AND ((b) = 'x')"}
	others := []string{"a > 5", "a > 5.0 AND b = 'x'", "b > 5 AND a = 'x'", "a > 5 OR b = 'x'", "a >= 5 AND b = 'x'", "a > 5 AND b = 'y'", "a > 5 AND b <> 'x'"}
	for _, expr := range same {
		require.True(t, compile(t, same[0]).Equal(compile(t, expr)), expr)
	}
	for _, expr := range others {
		require.False(t, compile(t, same[0]).Equal(compile(t, expr)), expr)
	}
}

// TestBounds: what an expression may be ends before the stack does.
func TestBounds(t *testing.T) {
	t.Parallel()
	deep := func(open, middle, shut string, n int) string {
		return strings.Repeat(open, n) + middle + strings.Repeat(shut, n)
	}
	var columns []string
	for i := range MaxColumns {
		columns = append(columns, fmt.Sprint("c", i))
	}
	long := "a = '" + strings.Repeat("x", MaxLength-6) + "'"
	for _, expr := range []string{
		long, deep("(", "a = 1", ")", 99), deep("NOT ", "a", "", 98), deep("- ", "5 = a", "", 98), "TRUE" + strings.Repeat(" = TRUE", 99), strings.Repeat("a OR ", 3000) + "a",
		strings.Join(columns, " OR "), strings.Join(columns, " OR ") + " OR c0",
	} {
		e := compile(t, expr)
		e.Match(make([][]byte, len(e.Columns())))
	}
	for expr, says := range map[string]string{
		long + " ":                              "at most",
		deep("(", "a = 1", ")", 100):            "levels",
		deep("NOT ", "a", "", 101):              "levels",
		deep("- ", "a = 5", "", 101):            "levels",
		"TRUE" + strings.Repeat(" = TRUE", 101): "levels",
		"a" + strings.Repeat(" IS NULL", 101):   "levels",
		deep("NOT(", "a", ")", 60):              "levels",
		deep("a=NOT ", "a", "", 101):            "levels",
		deep("(", "", "", 8000):                 "levels",
		strings.Repeat("NOT ", 4000):            "levels",
		strings.Repeat("- ", 8000):              "levels",
		strings.Join(columns, " OR ") + " OR x": "properties",
	} {
		_, err := Parse(expr)
		require.ErrorContains(t, err, says, "%.40q", expr)
		require.Less(t, len(err.Error()), 200, "%.40q", expr)
	}
}

// FuzzParse: whatever is written, and whatever a message has, the outcome is an
// error that points into the expression, or a verdict that the opposite
// expression contradicts and that costs nothing.
func FuzzParse(f *testing.F) {
	for _, row := range table {
		f.Add(row.expr, "100", "abc")
	}
	for _, row := range refused {
		f.Add(row.expr, "", "1e400")
	}
	f.Fuzz(func(t *testing.T, expr, odd, even string) {
		e, err := Parse(expr)
		if err != nil {
			var syntax *SyntaxError
			require.ErrorAs(t, err, &syntax)
			require.GreaterOrEqual(t, syntax.Offset, 0)
			require.LessOrEqual(t, syntax.Offset, len(expr))
			require.NotEmpty(t, syntax.Want)
			require.Less(t, len(err.Error()), 1000)
			return
		}
		require.True(t, e.Equal(compile(t, e.String())))
		require.LessOrEqual(t, e.root.depth, MaxDepth)
		values := make([][]byte, len(e.Columns()))
		for i := range values {
			values[i] = []byte([]string{odd, even}[i%2])
		}
		for range 2 { // with values, and without any
			v := e.root.eval(values)
			require.Contains(t, []kind{null, truth}, v.kind)
			if opposite, err := Parse("NOT (" + expr + "\n)"); err == nil { // else it is too long or too deep
				o := opposite.root.eval(values)
				require.Equal(t, v.kind, o.kind)
				require.True(t, v.kind == null || v.truth != o.truth)
			}
			clear(values)
		}
	})
}

// FuzzNumber: what is read as a number is the number that the whole of the text
// writes, and nothing makes it fail.
func FuzzNumber(f *testing.F) {
	for _, text := range sample {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		switch v := number(text); v.kind {
		case null:
		case whole:
			require.Equal(t, v.whole, number(fmt.Append(nil, v.whole)).whole)
		case float:
			var g float64
			n, err := fmt.Sscanf(string(text), "%g", &g)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.InDelta(t, 0, compare(v, value{kind: float, float: g}), 0)
		default:
			require.Fail(t, "another kind", "%v", v.kind)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, expr := range []string{"amount > 100", "region = 'eu-west'", "TAGS IN ('TagA', 'TagB') AND amount BETWEEN 50 AND 150 AND region STARTSWITH 'eu'"} {
		b.Run(expr, func(b *testing.B) {
			e := compile(b, expr)
			values := make([][]byte, len(e.Columns()))
			for i, name := range e.Columns() {
				values[i] = []byte(sample[name])
			}
			b.ReportAllocs()
			for b.Loop() {
				e.Match(values)
			}
		})
	}
}
