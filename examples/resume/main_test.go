package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the child, too: the parent starts whatever
// program it is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childFlag {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestKills(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), options{dir: t.TempDir(), rounds: 3, seed: 1}, &out), out.String())
	require.Contains(t, out.String(), "none lost, none twice")
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		pipe string
		want string // part of the error; empty: it comes out even
	}{
		"even":                     {"opened 1 0\nsent 1\ndelivered 1\ncommitted 1\n", ""},
		"send in doubt":            {"sent 1\ndelivered 1 2\ncommitted 1 2\n", ""},
		"commit in doubt":          {"sent 1\nsent 2\ndelivered 1\ncommitted 1\ndelivered 2\n", ""},
		"again after doubt":        {"sent 1\ndelivered 1\ndelivered 1\ncommitted 1\n", ""},
		"torn line was never said": {"sent 1\ndelivered 1\ncommitted 1\nsent 2", ""},
		"lost":                     {"sent 1\nsent 2\ndelivered 1\ncommitted 1\n", "lost: [2]"},
		"twice":                    {"sent 1\ndelivered 1\ncommitted 1\ndelivered 1\n", "delivered again: [1]"},
		"nothing":                  {"opened 1 0\n", "nothing is shown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLedger()
			require.NoError(t, l.enterAll(strings.NewReader(row.pipe)))
			if row.want == "" {
				require.NoError(t, l.verdict())
				return
			}
			require.ErrorContains(t, l.verdict(), row.want)
		})
	}
}

func TestForeignLinesAreRefused(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"\n", "hello\n", "sent x\n", "opened 1\n"} {
		require.Error(t, newLedger().enterAll(strings.NewReader(line)), line)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	l := newLedger()
	line := string(appendLine(nil, committedStep, []uint64{1, 1<<roundBits + 7}))
	require.Equal(t, "committed 1 1099511627783\n", line)
	require.NoError(t, l.enterAll(strings.NewReader(line)))
	require.True(t, l.committed[1<<roundBits+7])
}
