package labrow_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/labrow"
)

// output is a test whose log is looked at.
type output struct {
	testing.TB
	failed bool
	text   string
}

func (o *output) Helper()                         {}
func (o *output) Failed() bool                    { return o.failed }
func (o *output) Logf(format string, args ...any) { o.text += fmt.Sprintf(format+"\n", args...) }

func TestLog(t *testing.T) {
	t.Parallel()
	row := labrow.Row{Tool: "crash", Runs: 3, Acknowledged: 4, Note: "a {note}: with \"signs\"", Seconds: 1.5}
	var o output
	row.Log(&o)
	got, ok := labrow.Parse("    crash_test.go:50: " + o.text)
	require.True(t, ok)
	require.Equal(t, row, got)

	o = output{failed: true}
	row.Log(&o)
	require.Empty(t, o.text)
	for _, line := range []string{"", "ok", "lab row: ", "lab row: {", "lab row: {}"} {
		_, ok := labrow.Parse(line)
		require.False(t, ok, line)
	}
}

func TestFailed(t *testing.T) {
	t.Parallel()
	for _, row := range []labrow.Row{{Lost: 1}, {Again: 1}, {Refused: 1}, {Errors: 1}, {Problems: []string{"x"}}} {
		require.True(t, row.Failed())
		row.Rival = true
		require.False(t, row.Failed())
	}
	require.False(t, (&labrow.Row{Runs: 1, Acknowledged: 1, Operations: 1}).Failed())
}
