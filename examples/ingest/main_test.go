package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// oddSource is a directory with everything that a line and a folder can be.
func oddSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	long := strings.Repeat("d", 200)
	for name, text := range map[string]string{
		"root.go":               "package root\n",
		"a/empty.go":            "",
		"a/newlines.go":         "\n\n\n",
		"a/unended.go":          "package a\nvar x = 1",
		"b/windows.go":          "package b\r\n\r\n",
		"b/notgo.txt":           "not counted\n",
		"b/long.go":             strings.Repeat("x", 3*maxPart+5) + "\nshort\n",
		"b/exact.go":            strings.Repeat("y", maxPart),
		"b/exactended.go":       strings.Repeat("z", maxPart) + "\n",
		"b/binary.go":           "\x00\xff\n\x01",
		long + "1/deep/one.go":  "one\n",
		long + "2/deep/two.go":  "two\ntwo\n",
		"c/folder.go/inside.go": "in a folder with the name of a file\n",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

func TestOddLinesAndTags(t *testing.T) {
	t.Parallel()
	source := oddSource(t)
	var out bytes.Buffer
	o := options{source: source, store: t.TempDir(), json: true, tag: "b"}
	require.NoError(t, run(t.Context(), o, &out, nil), out.String())

	var r report
	require.NoError(t, json.Unmarshal(out.Bytes(), &r))
	require.True(t, r.Equal)
	require.Equal(t, 12, r.Files)
	want := map[string]tally{
		filepath.Base(source): {1, 12},
		"a":                   {5, 18},
		"b":                   {8, 5*maxPart + 5 + 5 + 9 + 1 + 1 + 2 + 1},
		"c":                   {1, 35},
	}
	for _, tag := range r.Tags {
		require.LessOrEqual(t, len(tag.Tag), maxTag)
		if w, ok := want[tag.Tag]; ok {
			require.Equal(t, w, tag.Files, tag.Tag)
			require.Equal(t, w, tag.Clustering, tag.Tag)
			require.Equal(t, []tally{w, w}, tag.Broadcast, tag.Tag)
		}
	}
	require.Len(t, r.Tags, len(want)+2, "the two long names stay apart")
	require.Equal(t, want["b"], r.Reread.tally)
}

func TestDifferenceIsReported(t *testing.T) {
	t.Parallel()
	r := report{
		truth:      counts{"a": {2, 20}, "b": {1, 1}},
		clustering: counts{"a": {2, 20}, "b": {1, 1}},
		broadcast:  []counts{{"a": {2, 20}, "b": {1, 1}}, {"a": {2, 19}, "b": {1, 1}}},
		Tag:        "b", Reread: rate{tally: tally{1, 1}},
	}
	r.compare()
	require.False(t, r.Equal)
	require.False(t, r.Tags[0].Equal)
	require.True(t, r.Tags[1].Equal)
	var out bytes.Buffer
	require.NoError(t, r.writeText(&out))
	require.Contains(t, out.String(), "DIFFERS")
}

func TestStoreInUseIsRefused(t *testing.T) {
	t.Parallel()
	source, store := oddSource(t), t.TempDir()
	o := options{source: source, store: store}
	require.NoError(t, run(t.Context(), o, &bytes.Buffer{}, nil))
	require.ErrorContains(t, run(t.Context(), o, &bytes.Buffer{}, nil), "fresh one")
}

func TestBar(t *testing.T) {
	t.Parallel()
	require.Equal(t, "sent     ["+strings.Repeat("#", 20)+strings.Repeat(".", 20)+"]  50%", drawBar("sent", 5, 10))
	require.Contains(t, drawBar("sent", 12, 10), "100%")
	require.Contains(t, drawBar("sent", -1, 10), "  0%")
	var none *bar
	none.show("sent", 1, 2)
	none.clear()
}
